"""The errors that FLTS raises. The class of an error decides what the pipeline does next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class FltsError(Exception):
    """Base of all errors raised on purpose.

    Parameters
    ----------
    message : str
        One sentence that says what is wrong and, where it helps, what to do.
    code : str
        A short constant for programs (``too_few_rows``); defaults to the class's own.
    field : str, optional
        The input (column, setting, parameter) that the message is about.
    """

    code = "error"

    def __init__(self, message: str, *, code: str | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.field = field

    def as_body(self) -> dict[str, dict[str, str]]:
        """Return the error body that every HTTP answer and record uses."""
        body = {"code": self.code, "message": self.message}
        if self.field is not None:
            body["field"] = self.field
        return {"error": body}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values from which `from_dict` makes the error again in another process."""
        return {
            "classes": [kind.__name__ for kind in type(self).__mro__],
            "message": self.message,
            "code": self.code,
            "field": self.field,
        }

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> FltsError:
        """Return the error that `to_dict` described: of its own class where this module has it, else of a base."""
        known = (globals().get(name) for name in values["classes"])
        kind = next(each for each in known if isinstance(each, type) and issubclass(each, FltsError))
        error = kind(values["message"], code=values["code"], field=values["field"])
        if isinstance(error, RetryableError):
            error.retry_after_seconds = values["retry_after_seconds"]
        return error


class RetryableError(FltsError):
    """May succeed later: wait ``retry_after_seconds``, keep the offset. HTTP 503."""

    code = "try_again_later"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        field: str | None = None,
        retry_after_seconds: float = 1.0,
    ) -> None:
        super().__init__(message, code=code, field=field)
        self.retry_after_seconds = retry_after_seconds

    def to_dict(self) -> dict[str, Any]:
        """Return the base class's values and ``retry_after_seconds``."""
        return {**super().to_dict(), "retry_after_seconds": self.retry_after_seconds}


class BackendAwayError(RetryableError):
    """A store, broker or tracker did not answer in time; never counted as a try."""

    code = "backend_away"


class RejectedError(FltsError):
    """Can never succeed: dead-letter it with its reason, move on. HTTP 422."""

    code = "rejected"


class NotFoundError(RejectedError):
    """The requested item does not exist. HTTP 404."""

    code = "not_found"


class ObjectNotFoundError(NotFoundError):
    """The store holds no object under this bucket and key."""

    code = "object_not_found"


class HashMismatchError(RejectedError):
    """An object's bytes are not the ones its claim or bundle promised."""

    code = "hash_mismatch"


class PreconditionFailedError(FltsError):
    """A conditional put found another object, because another writer was first."""

    code = "precondition_failed"


class ConflictError(RejectedError):
    """The request's precondition does not hold. HTTP 409."""

    code = "conflict"


class RunDeletedError(RejectedError):
    """The run's identifier was deleted since the run began: nothing more is done for it."""

    code = "run_deleted"


class SeriesTooShortError(RejectedError):
    """Fewer rows than the window, the horizon and the tails need."""

    code = "too_few_rows"
