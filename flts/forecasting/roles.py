"""The roles of a table's columns: forecast (targets), only measured (past), or known ahead (future)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from flts.errors import RejectedError


@dataclass(frozen=True, slots=True)
class Roles:
    """The columns by role; a column that is in neither tuple is only measured."""

    targets: tuple[str, ...]
    future: tuple[str, ...]


class RoleSettings(Protocol):
    """The settings that give columns a role, each a tuple of names."""

    @property
    def targets(self) -> tuple[str, ...]:
        """``TARGETS``."""
        ...

    @property
    def past_columns(self) -> tuple[str, ...]:
        """``PAST_COLUMNS``."""
        ...

    @property
    def future_columns(self) -> tuple[str, ...]:
        """``FUTURE_COLUMNS``."""
        ...


def targets_among(named: RoleSettings, columns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns to forecast: those of ``TARGETS``, or all that no other setting names. Nothing is checked."""
    others = {*named.past_columns, *named.future_columns}
    return tuple(dict.fromkeys(named.targets)) or tuple(name for name in columns if name not in others)


def resolve_roles(named: RoleSettings, columns: tuple[str, ...], dropped: Mapping[str, str]) -> Roles:
    """Return the roles of a table's columns.

    Without ``TARGETS`` every column that no other setting names is a target; with it, the columns that no setting names
    are only measured. A past or future column that the recipe dropped has no role.

    Parameters
    ----------
    named : RoleSettings
    columns : tuple of names
        Kept columns.
    dropped : mapping
        Reason for each column that was left out.

    Raises
    ------
    RejectedError
        ``unknown_target`` or ``target_dropped`` (field ``TARGETS``); ``bad_setting`` with the field ``PAST_COLUMNS`` or
        ``FUTURE_COLUMNS`` for an unknown column, a column with two roles, or if no target is left.
    """
    for name in named.targets:
        if name in dropped:
            msg = f"target {name} was dropped: {dropped[name]}"
            raise RejectedError(msg, code="target_dropped", field="TARGETS")
        if name not in columns:
            msg = f"target {name} is not among the columns: {', '.join(columns)}"
            raise RejectedError(msg, code="unknown_target", field="TARGETS")
    taken = dict.fromkeys(named.targets, "TARGETS")
    for setting, names in (("PAST_COLUMNS", named.past_columns), ("FUTURE_COLUMNS", named.future_columns)):
        for name in dict.fromkeys(names):
            if name not in columns and name not in dropped:
                msg = f"{setting}: {name} is not among the columns: {', '.join(columns)}"
                raise RejectedError(msg, code="bad_setting", field=setting)
            if name in taken:
                msg = f"{setting}: {name} is in {taken[name]} too; a column has one role"
                raise RejectedError(msg, code="bad_setting", field=setting)
            taken[name] = setting
    targets = targets_among(named, columns)
    if not targets:
        setting = "FUTURE_COLUMNS" if named.future_columns else "PAST_COLUMNS"
        msg = f"{setting}: no column is left to forecast"
        raise RejectedError(msg, code="bad_setting", field=setting)
    return Roles(targets, tuple(name for name in dict.fromkeys(named.future_columns) if name in columns))
