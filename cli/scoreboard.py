"""Format a run's scoreboard and decision: the compared models, the winner and the reasons."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cli.text import duration, fixed, number, one_line, table
from flts.contracts.champion_stage import PROVISIONAL, REFITTED
from flts.contracts.lifecycle import RunState

Record = Mapping[str, Any]

MARK = "*"
ENDED_WITH_A_WINNER = frozenset({RunState.PROMOTED, RunState.SUPERSEDED})
CODE = re.compile(r"^[a-z][a-z0-9_]*: ")
"""The code at the start of a reason; it is for programs and is not shown to people."""


def scoreboard_table(view: Record) -> list[str]:
    """Return the table of candidates, champion and baselines, scored on the same held-out rows, the best first."""
    board = view.get("scoreboard")
    if not board:
        return ["there is no scoreboard yet"]
    if _came_late(view):
        board = {**board, "decision": "superseded"}
    rows = [_candidate_row(board, row) for row in board.get("candidates") or ()]
    champion = board.get("champion")
    if champion:
        gate = _codes(champion.get("reasons")) or "champion before this run"
        rows.append((champion.get("score"), ("", f"{champion.get('model_type')} (champion)", champion, None, gate)))
    rows.extend((row.get("score"), ("", row.get("name"), row, None, "baseline")) for row in board["references"])
    rows.sort(key=lambda row: (row[0] is None, row[0]))
    headers = ("", "model", "score", "RMSE", "MAE", "MSE", "skill", "coverage", "trained in", "gate")
    cells = [
        (
            mark,
            name,
            *(fixed(source.get(key)) for key in ("score", "rmse", "mae", "mse")),
            _signed(source.get("skill")),
            _coverage(source.get("coverage")),
            duration(trained) if trained is not None else "",
            gate,
        )
        for _, (mark, name, source, trained, gate) in rows
    ]
    right = ("score", "RMSE", "MAE", "MSE", "skill", "coverage", "trained in")
    return [*table(headers, cells, right=right), _scoreboard_note(board)]


def target_table(view: Record, *, step: int = 1) -> list[str]:
    """Return the RMSE of each candidate and baseline per target, in the target's unit, ``step`` steps ahead."""
    board = view.get("scoreboard")
    if not board:
        return ["there is no scoreboard yet"]
    contenders = [(row.get("model_type"), row) for row in board.get("candidates") or () if row.get("table")]
    contenders += [(row.get("name"), row) for row in board.get("references") or () if row.get("table")]
    found: dict[str, dict[str, Any]] = {}
    for name, row in contenders:
        for cell in row["table"]:
            if cell.get("step") == step:
                found.setdefault(str(cell["target"]), {})[str(name)] = cell.get("rmse_raw")
    names = [str(name) for name, _ in contenders]
    rows = [(target, *(number(values.get(name)) for name in names)) for target, values in found.items()]
    return [f"RMSE per target in its own unit, {step} step(s) ahead", *table(("target", *names), rows, right=names)]


def decision_lines(view: Record) -> list[str]:
    """Return the decision and its reasons, one per line, between the run's provisional and its refitted champion."""
    return [*_stage_lines(view, PROVISIONAL), *_decision_lines(view), *_stage_lines(view, REFITTED)]


def _stage_lines(view: Record, stage: str) -> list[str]:
    record = (view.get("champion_stages") or {}).get(stage)
    if not record:
        return []
    promoted = record.get("decision") == RunState.PROMOTED
    lines = [f"{stage}: {record.get('model_type') if promoted else record.get('decision')}"]
    return [*lines, *(f"  - {_reason(reason)}" for reason in record.get("reasons") or ())]


def _decision_lines(view: Record) -> list[str]:
    decision = view.get("decision") or {}
    board = view.get("scoreboard") or {}
    if not decision:
        details = view.get("outcome_details") or {}
        if view.get("outcome"):
            reason = details.get("reason") or details.get("message") or details.get("error") or ""
            return [f"{view['outcome']}{': ' if reason else ''}{one_line(reason)}"]
        return ["not decided yet"]
    # If a newer run becomes the champion after eval has decided "promoted" for this run, this run's outcome is
    # "superseded". The decision still states "promoted", so the outcome is shown instead.
    late = _came_late(view)
    told = (view.get("outcome_details") or {}) if late else decision
    word = "superseded" if late else str(decision.get("decision"))
    model = decision.get("model_type") or board.get("winner")
    lines = [f"{word}: {model}" if model and word in ENDED_WITH_A_WINNER else word]
    lines += [f"  - {_reason(reason)}" for reason in told.get("reasons") or board.get("reasons") or ()]
    for row in board.get("candidates") or ():
        lines += [f"  - {row.get('model_type')}: {_reason(reason)}" for reason in row.get("reasons") or ()]
        lines += [f"  ! {row.get('model_type')}: {_reason(reason)}" for reason in row.get("warnings") or ()]
    return list(dict.fromkeys(lines))


def _came_late(view: Record) -> bool:
    return view.get("outcome") == RunState.SUPERSEDED


def _candidate_row(board: Record, row: Record) -> tuple[Any, tuple[Any, ...]]:
    decision = board.get("decision")
    won = row.get("model_type") == board.get("winner") and decision in ENDED_WITH_A_WINNER
    gate = decision if won else "passed" if row.get("passed") else _codes(row.get("reasons")) or "not passed"
    name = f"{row.get('model_type')}{' (reused)' if row.get('reused') else ''}"
    return row.get("score"), (MARK if won else "", name, row, row.get("training_seconds"), gate)


def _scoreboard_note(board: Record) -> str:
    weights = board.get("weights") or {}
    formula = " + ".join(f"{weights[name]:g} {name.upper()}" for name in ("rmse", "mae", "mse") if name in weights)
    steps = ", ".join(str(step) for step in board.get("score_horizons") or ())
    return (
        f"score = {formula}, scaled, mean over {len(board.get('targets') or ())} target(s), "
        f"step(s) ahead: {steps or '-'}; "
        f"{board.get('origins', 0):,} forecasts on {board.get('test_rows', 0):,} held-out rows; lower is better"
    )


def _coverage(rows: Any) -> str:
    values = [row["coverage"] for row in rows or () if isinstance(row.get("coverage"), (int, float))]
    return f"{sum(values) / len(values):.2f}" if values else "-"


def _signed(value: object) -> str:
    return f"{value:+.3f}" if isinstance(value, (int, float)) else "-"


def _codes(reasons: Any) -> str:
    return ", ".join(
        str(reason.get("code")) if isinstance(reason, Mapping) else str(reason).partition(":")[0]
        for reason in reasons or ()
    )


def _reason(reason: Any) -> str:
    if isinstance(reason, Mapping):
        return one_line(reason.get("message") or reason.get("code"))
    return CODE.sub("", one_line(reason))
