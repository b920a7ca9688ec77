"""The champion pointers: one per identifier, which is authoritative, and one per configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from flts.storage import layout
from flts.storage.records import TRIES, Record, Records, contended

Move = Literal["moved", "same", "superseded"]


class Pointers:
    """Reads champion pointers, and moves them only to newer runs.

    Parameters
    ----------
    records : Records
        The records of the bucket of promotions.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    def current(self, identifier: str) -> tuple[Record, str] | None:
        """Return the champion pointer and its etag, or None."""
        return self._records.read_with_etag(layout.CURRENT(identifier))

    def current_of_config(self, identifier: str, config_hash: str) -> Record | None:
        """Return the champion pointer of one configuration, or None."""
        found = self._records.read_with_etag(layout.CURRENT_OF_CONFIG(identifier, config_hash))
        return found and found[0]

    def champions(self) -> dict[str, Record]:
        """Return the champion pointers by identifier."""
        found = ((name, self.current(name)) for name in self._records.folders())
        return {name: pointer[0] for name, pointer in found if pointer is not None}

    def move_current(self, identifier: str, pointer: Mapping[str, Any]) -> Move:
        """Move the champion pointer to a run, unless it names a newer run.

        The stored pointer also has ``previous``: the replaced pointer without its own ``previous``.

        Returns
        -------
        "moved" | "same" | "superseded"
            ``same`` if the pointer already names this run; ``superseded`` if it names a newer run and stays.
        """
        return self._move(layout.CURRENT(identifier), pointer)

    def move_current_of_config(self, identifier: str, config_hash: str, pointer: Mapping[str, Any]) -> Move:
        """Move the champion pointer of one configuration as `move_current` does."""
        return self._move(layout.CURRENT_OF_CONFIG(identifier, config_hash), pointer)

    def _move(self, key: str, pointer: Mapping[str, Any]) -> Move:
        run = str(pointer["pipeline_run_id"])
        tried = False
        for _ in range(TRIES):
            found = self._records.read_with_etag(key)
            stored, etag = found or (None, None)
            stored_run = str(stored.get("pipeline_run_id", "")) if stored else ""
            if stored_run == run:
                # The pointer already names this run. If this call has tried a put before, that put moved the pointer
                # and only its answer was lost.
                return "moved" if tried else "same"
            if stored_run > run:  # run ids are UUIDv7, so their order is the order in time
                return "superseded"
            previous = {name: value for name, value in stored.items() if name != "previous"} if stored else None
            tried = True
            if self._records.replace(key, {**pointer, "previous": previous}, etag):
                return "moved"
        raise contended(key)
