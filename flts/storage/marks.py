"""Marks: empty objects whose key names a run, so that one listing finds all runs in a state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flts.storage.layout import Key, RunName

if TYPE_CHECKING:
    from flts.storage.records import Records


class Marks:
    """The marks of one kind.

    Parameters
    ----------
    records : Records
        The records of the bucket of runs.
    form : Key
        The form of the keys of the marks.
    """

    def __init__(self, records: Records, form: Key) -> None:
        self._records = records
        self._form = form

    def put(self, name: RunName) -> None:
        """Mark a run."""
        self._records.mark(self._form(name.pipeline_run_id, name.identifier))

    def remove(self, name: RunName) -> None:
        """Remove the mark of a run, if there is one."""
        self._records.remove(self._form(name.pipeline_run_id, name.identifier))

    def runs(self) -> list[RunName]:
        """Return the runs that are marked, oldest first."""
        found = (self._form.parse(key) for key in self._records.keys(self._form.prefix()))
        return [RunName(**parts) for parts in found if parts is not None]
