"""Collect the problems of a file, so that one refusal names all of them."""

from __future__ import annotations

from typing import NoReturn

from flts.errors import RejectedError

MOST_PROBLEMS = 8  # further problems are not searched for


class Problems:
    """The problems found so far, each with a code and a field."""

    def __init__(self) -> None:
        self._found: list[RejectedError] = []
        self._raised = False

    def add(self, message: str, *, code: str, field: str) -> None:
        """Note a problem; reading can continue. Raises all of them if they are `MOST_PROBLEMS`."""
        self.add_error(RejectedError(message, code=code, field=field))

    def add_error(self, error: RejectedError) -> None:
        """Note a problem that was raised."""
        self._found.append(error)
        if len(self._found) >= MOST_PROBLEMS:
            self.raise_any()

    def refuse(self, message: str, *, code: str, field: str) -> NoReturn:
        """Note a problem that ends the reading, and raise all problems."""
        self._found.append(RejectedError(message, code=code, field=field))
        self.raise_any()
        raise AssertionError

    def raise_with(self, error: RejectedError) -> NoReturn:
        """Raise all problems and an error that ended the reading. An error of `raise_any` contains them already."""
        if self._raised or error in self._found:
            raise error
        self._found.append(error)
        self.raise_any()
        raise AssertionError

    def raise_any(self) -> None:
        """Raise one error with the code and the field of the first problem, whose message lists all of them."""
        if not self._found:
            return
        self._raised = True
        first = self._found[0]
        if len(self._found) == 1:
            raise first from None
        listed = "; ".join(f"({at}) {each.message}" for at, each in enumerate(self._found, start=1))
        msg = f"{len(self._found)} problems: {listed}"
        raise RejectedError(msg, code=first.code, field=first.field)
