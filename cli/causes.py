"""The cause of a run and the operations on it, as lines of text: pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cli.text import one_line, table, utc

Record = Mapping[str, Any]

LONGEST_SHOWN = 40
UNITS = ("B", "kB", "MB", "GB")


def short_cause(run: Record) -> str:
    """Return a run's cause and the start of its reason, for a table: ``rollback: worse at night``."""
    cause, reason = str(run.get("cause") or "-"), one_line(run.get("reason") or "")
    if len(reason) > LONGEST_SHOWN:
        reason = f"{reason[: LONGEST_SHOWN - 4]} ..."
    return f"{cause}: {reason}" if reason else cause


def cause_lines(view: Record, operations: Sequence[Record]) -> list[str]:
    """Return the cause of a run, and the operations on it."""
    of_run, reason = view.get("of_run"), one_line(view.get("reason") or "")
    line = f"cause: {view.get('cause') or '-'}"
    if of_run:
        line += f" of run {of_run}"
    if view.get("force"):
        line += ", forced"
    given = {name: value for name, value in (view.get("settings") or {}).items() if name != "EXTRA_HASH_SALT"}
    if given:
        line += f", with {', '.join(f'{name}={value}' for name, value in sorted(given.items()))}"
    if (view.get("settings") or {}).get("EXTRA_HASH_SALT"):
        line += ", with a new salt"
    if reason:
        line += f"; because: {reason}"
    return [line, *operation_lines(operations)]


def operation_lines(operations: Sequence[Record]) -> list[str]:
    """Return one line per operation, newest first."""
    return [f"  {utc(one.get('begun'))} UTC  {_operation(one)}" for one in operations]


def deleted_lines(identifier: str, operations: Sequence[Record], deletion: Record | None) -> list[str]:
    """Return the state of a data set without runs: whether it was deleted, and the operations on it."""
    lines = [f"there are no runs on {identifier}"]
    if deletion is not None:
        lines = [f"{identifier} was deleted"]
        if deletion.get("unfinished"):
            lines = [f"the deletion of {identifier} was cut off: `flts delete {identifier} --yes` ends it"]
        elif not deletion.get("recorded"):
            lines.append("not in MLflow yet: eval records it within SPOOL_DRAIN_SECONDS after MLflow answers")
    return [*lines, *operation_lines(operations)]


def held_lines(answer: Record) -> list[str]:
    """Return the objects that a deletion removes, or has removed, by bucket."""
    rows = [
        (held.get("bucket"), held.get("what"), held.get("objects"), size(held.get("bytes")))
        for held in answer.get("buckets") or ()
    ]
    rows.append(("", "in all", answer.get("objects"), size(answer.get("bytes"))))
    return table(("bucket", "what", "objects", "size"), rows, right=("objects", "size"))


def removal_lines(answer: Record) -> list[str]:
    """Return the runs and objects that a round of the janitor removes, or has removed, and the reasons."""
    removals = answer.get("removals") or ()
    word = "would go" if answer.get("dry_run") else "gone"
    if not removals:
        return [f"nothing {'to remove' if answer.get('dry_run') else 'was removed'}"]
    lines = []
    for removal in removals:
        lines.append(f"{removal.get('identifier')}:")
        runs = removal.get("runs") or ()
        if runs:
            records = f"{removal.get('run_objects')} records, {size(removal.get('run_bytes'))}"
            lines.append(f"  {len(runs)} run(s) {word} ({records}): {removal.get('why_runs')}")
            lines += [f"    {run}" for run in runs]
        for group in removal.get("objects") or ():
            count = f"{group.get('objects')} object(s) of {group.get('bucket')} {word}"
            lines.append(f"  {count} ({size(group.get('bytes'))}): {group.get('why')}")
    return lines


def size(number: object) -> str:
    """Return a number of bytes in B, kB, MB or GB."""
    if not isinstance(number, (int, float)):
        return "-"
    value = float(number)
    for unit in UNITS[:-1]:
        if value < 1000:  # noqa: PLR2004 - each unit is 1,000 of the unit before
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} {UNITS[-1]}"


def _operation(one: Record) -> str:
    text = str(one.get("cause") or "-")
    if one.get("pipeline_run_id"):
        text += f" of run {one['pipeline_run_id']}"
    if one.get("objects") is not None:
        text += f": {one['objects']} objects, {size(one['bytes'])}" if "bytes" in one else f": {one['objects']} objects"
    if one.get("ended") is None:
        text += " (not ended)"
    reason = one_line(one.get("reason") or "")
    return f"{text}; because: {reason}" if reason else text
