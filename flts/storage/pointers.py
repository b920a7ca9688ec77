"""The champion pointers: one per identifier, which is authoritative, and one per configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from flts.contracts.champion_stage import is_champion, order_of
from flts.storage import layout
from flts.storage.records import TRIES, Record, Records, contended

Move = Literal["moved", "same", "superseded"]


class Pointers:
    """Reads champion pointers, and moves them only forward in the order of `flts.contracts.champion_stage`.

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
        """Move the champion pointer to a run at a stage, unless the stored pointer is above it in their order.

        The stored pointer also has ``previous``: the champion before this run, without its own ``previous``. A
        provisional pointer is never a ``previous``, so a rollback cannot return to it.

        Returns
        -------
        "moved" | "same" | "superseded"
            ``same`` if the pointer already names this run at this stage. ``superseded`` if it stays, because it names a
            newer run, a later stage of this run, or, where this pointer is provisional, any champion.
        """
        return self._move(layout.CURRENT(identifier), pointer)

    def move_current_of_config(self, identifier: str, config_hash: str, pointer: Mapping[str, Any]) -> Move:
        """Move the champion pointer of one configuration as `move_current` does."""
        return self._move(layout.CURRENT_OF_CONFIG(identifier, config_hash), pointer)

    def _move(self, key: str, pointer: Mapping[str, Any]) -> Move:
        wanted = order_of(pointer)
        tried = False
        for _ in range(TRIES):
            found = self._records.read_with_etag(key)
            stored, etag = found or (None, None)
            if stored and order_of(stored) == wanted:
                # The pointer already names this run at this stage. If this call has tried a put before, that put moved
                # the pointer and only its answer was lost.
                return "moved" if tried else "same"
            if stored and order_of(stored) > wanted:
                return "superseded"
            tried = True
            if self._records.replace(key, {**pointer, "previous": _previous(stored, pointer)}, etag):
                return "moved"
        raise contended(key)


def _previous(stored: Record | None, pointer: Mapping[str, Any]) -> Record | None:
    """Return the champion before a pointer's run, given the pointer that it replaces."""
    if not stored:
        return None
    if not is_champion(stored) or stored.get("pipeline_run_id") == pointer["pipeline_run_id"]:
        previous: Record | None = stored.get("previous")
        return previous
    return {name: value for name, value in stored.items() if name != "previous"}
