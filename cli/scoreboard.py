"""Format a run's scoreboard and decision: the compared models, the winner and the reasons."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from cli.text import duration, fitting_columns, fixed, number, one_line, table
from flts.contracts.champion_stage import PROVISIONAL, REFITTED
from flts.contracts.lifecycle import RunState
from flts.trainers import BASELINES

Record = Mapping[str, Any]
Row = tuple[Any, tuple[Any, ...]]
"""The score to sort by; then mark, name, source of the figures, seconds of training, and the gate's result."""

MARK = "*"
WIDTH = 80  # characters of a terminal line
ENDED_WITH_A_WINNER = frozenset({RunState.PROMOTED, RunState.SUPERSEDED})
CODE = re.compile(r"^[a-z][a-z0-9_]*: ")
"""The code at the start of a reason; it is for programs and is not shown to people."""


def scoreboard_table(view: Record, *, width: int = WIDTH) -> list[str]:
    """Return the table of candidates, champion and baselines, scored on the same held-out rows, the best first.

    Parameters
    ----------
    view : mapping
        Of a run.
    width : int
        Characters of a line. Columns that do not fit are left out, blocks of steps in the middle of the horizon first.
        The scoreboard of a release before the score over the horizon has all of its columns.
    """
    board = view.get("scoreboard")
    if not board:
        return ["there is no scoreboard yet"]
    if _came_late(view):
        board = {**board, "decision": "superseded"}
    over_horizon = "best_baseline" in board
    rows = [_candidate_row(board, row) for row in board.get("candidates") or ()]
    champion = board.get("champion")
    if champion:
        gate = _codes(champion.get("reasons")) or ("champion before" if over_horizon else "champion before this run")
        rows.append((champion.get("score"), ("", f"{champion.get('model_type')} (champion)", champion, None, gate)))
    rows.extend(_baseline_row(board, row) for row in board["references"])
    rows.sort(key=lambda row: (row[0] is None, row[0]))
    lines = _horizon_table(board, rows, width) if over_horizon else _step_table(board, rows)
    return [*lines, *_series_note(board, width)]


def _series_note(board: Record, width: int) -> list[str]:
    """Return how the winner's scores are spread over many series, and the worst of them; nothing for few."""
    contenders = [*(board.get("candidates") or ()), *(board.get("references") or ())]
    found = next((row["series"] for row in contenders if row.get("series") and _won(board, row)), None)
    if not found:
        return []
    quantiles = ", ".join(
        f"{float(share):.0%} {fixed(score, decimals=2)}" for share, score in found["quantiles"].items()
    )
    worst = ", ".join(
        f"{one_line(name)} {fixed(score, decimals=2)}" for name, score in list(found["worst"].items())[:5]
    )
    return textwrap.wrap(
        f"{board.get('series'):,} series: better than the best baseline's mean on {found['better']:,} of "
        f"{found['scored']:,}; quantiles of the score {quantiles}; worst {worst}",
        width,
    )


def _step_table(board: Record, rows: Sequence[Row]) -> list[str]:
    """Return the table of a scoreboard whose score is the composite of errors at a few steps."""
    headers = ("", "model", "score", "RMSE", "MAE", "MSE", "skill", "coverage", "trained in", "gate")
    cells = [
        (
            mark,
            name,
            *(fixed(source.get(key)) for key in ("score", "rmse", "mae", "mse")),
            _signed(source.get("skill")),
            _coverage(source.get("coverage")),
            _trained(trained),
            gate,
        )
        for _, (mark, name, source, trained, gate) in rows
    ]
    right = ("score", "RMSE", "MAE", "MSE", "skill", "coverage", "trained in")
    return [*table(headers, cells, right=right), _step_note(board)]


def _horizon_table(board: Record, rows: Sequence[Row], width: int) -> list[str]:
    """Return the table of a scoreboard whose score is the mean over the horizon, 1 for the best baseline."""
    blocks = _shown_blocks(board)
    errors = {"RMSE": "rmse", "MAE": "mae", "MSE": "mse"}
    headers = ("", "model", "score", "skill", *blocks, *errors, "coverage", "trained in", "gate")
    cells = [
        (
            mark,
            name,
            fixed(source.get("score"), decimals=3),
            _signed(source.get("skill")),
            *(fixed(_at(source.get("blocks"), at), decimals=2) for at in blocks.values()),
            *(fixed(source.get(key)) for key in errors.values()),
            _coverage(source.get("coverage")),
            _trained(trained),
            gate,
        )
        for _, (mark, name, source, trained, gate) in rows
    ]
    first_to_go = ("MSE", "MAE", "trained in", "RMSE", "coverage", *_by_importance(blocks)[::-1], "skill")
    kept = fitting_columns(headers, cells, first_to_go=first_to_go, width=width)
    shown = [headers[at] for at in kept]
    lines = table(shown, [[row[at] for at in kept] for row in cells], right=shown[2:-1])
    return [*lines, *_horizon_note(board, [name for name in shown if name in blocks], shown, width)]


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
    lines = [f"{stage}: {_named(record.get('model_type')) if promoted else record.get('decision')}"]
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
    decided = (view.get("outcome_details") or {}) if late else decision
    word = "superseded" if late else str(decision.get("decision"))
    model = decision.get("model_type") or board.get("winner")
    lines = [f"{word}: {_named(model)}" if model and word in ENDED_WITH_A_WINNER else word]
    lines += [f"  - {_reason(reason)}" for reason in decided.get("reasons") or board.get("reasons") or ()]
    for row in board.get("candidates") or ():
        if row.get("members"):
            parts = ", ".join(f"{name} {share:.0%}" for name, share in row["members"].items())
            lines.append(f"  - {row.get('model_type')}: mean weights {parts}")
        lines += [f"  - {row.get('model_type')}: {_reason(reason)}" for reason in row.get("reasons") or ()]
        lines += [f"  ! {row.get('model_type')}: {_reason(reason)}" for reason in row.get("warnings") or ()]
    for row in board.get("references") or ():
        if row.get("model_type") == model:  # the baseline that is served
            lines += [f"  ! {model}: {_reason(reason)}" for reason in row.get("warnings") or ()]
    return list(dict.fromkeys(lines))


def _named(model_type: object) -> str:
    """Return a model type, marked if it is a baseline."""
    return f"{model_type} (baseline)" if model_type in BASELINES else str(model_type)


def _came_late(view: Record) -> bool:
    return view.get("outcome") == RunState.SUPERSEDED


def _candidate_row(board: Record, row: Record) -> Row:
    won = _won(board, row)
    gate = (
        board.get("decision") if won else "passed" if row.get("passed") else _codes(row.get("reasons")) or "not passed"
    )
    name = f"{row.get('model_type')}{' (reused)' if row.get('reused') else ''}"
    return row.get("score"), (MARK if won else "", name, row, row.get("training_seconds"), gate)


def _baseline_row(board: Record, row: Record) -> Row:
    """Return the row of a baseline, which may be the best one, and may be served because no model passes."""
    best = board.get("best_baseline")
    is_best = best is not None and row.get("model_type") == best
    won = is_best and _won(board, row)
    gate = f"{board.get('decision')} baseline" if won else "best baseline" if is_best else "baseline"
    return row.get("score"), (MARK if won else "", row.get("name"), row, None, gate)


def _won(board: Record, row: Record) -> bool:
    return row.get("model_type") == board.get("winner") and board.get("decision") in ENDED_WITH_A_WINNER


def _shown_blocks(board: Record) -> dict[str, int]:
    """Return the position of each block of steps by its header; a block of the whole horizon is the score itself."""
    horizon = board.get("horizon_steps")
    blocks = [(block.get("first"), block.get("last")) for block in board.get("blocks") or ()]
    return {
        str(first) if first == last else f"{first}-{last}": at
        for at, (first, last) in enumerate(blocks)
        if (first, last) != (1, horizon)
    }


def _by_importance(blocks: Mapping[str, int]) -> list[str]:
    """Return the headers of blocks: the first and the last steps, the paths to the end of a season, then inwards."""
    paths = [name for name in blocks if name.startswith("1-")]
    steps = [name for name in blocks if name not in paths]
    inwards = [steps[at // 2] if at % 2 == 0 else steps[-1 - at // 2] for at in range(len(steps))]
    return [*inwards[:2], *paths, *inwards[2:]]


def _at(values: Any, position: int) -> object:
    return values[position] if values and position < len(values) else None


def _step_note(board: Record) -> str:
    weights = board.get("weights") or {}
    formula = " + ".join(f"{weights[name]:g} {name.upper()}" for name in ("rmse", "mae", "mse") if name in weights)
    steps = ", ".join(str(step) for step in board.get("score_horizons") or ())
    return (
        f"score = {formula}, scaled, mean over {len(board.get('targets') or ())} target(s), "
        f"step(s) ahead: {steps or '-'}; "
        f"{board.get('origins', 0):,} forecasts on {board.get('test_rows', 0):,} held-out rows; lower is better"
    )


def _horizon_note(board: Record, blocks: Sequence[str], shown: Sequence[str], width: int) -> list[str]:
    best = next((row for row in board["references"] if row.get("model_type") == board["best_baseline"]), None)
    if best is None:
        return ["no model was scored"]
    steps = [int(step) for step in board.get("score_horizons") or ()]
    whole = steps == list(range(1, len(steps) + 1))
    where = ("step 1" if len(steps) == 1 else f"steps 1 to {len(steps)}") if whole else f"steps {_listed(steps)}"
    weights = board.get("weights") or {}
    formula = " + ".join(f"{weights[name]:g} {name.upper()}" for name in ("rmse", "mae", "mse") if name in weights)
    unit = f"in units of the error of {best.get('name')} at the same step"
    facts = [f"score: mean error at {where}, {unit}; 1 = best baseline, lower is better; error = {formula}, scaled"]
    if blocks:
        facts.append(f"{_listed(blocks)}: the score of these steps")
    if "skill" in shown:
        facts.append("skill: share of the error of persistence that is saved")
    targets = board.get("series") or len(board.get("targets") or ())
    facts.append(
        f"{targets:,} target(s), {board.get('origins', 0):,} forecasts on {board.get('test_rows', 0):,} held-out rows"
    )
    if "seasons" in board:
        seasons = f"seasons: {_listed(board['seasons'])} steps" if board["seasons"] else "no season found"
        facts[-1] += f"; {seasons} in the training rows"
    return [line for fact in facts for line in textwrap.wrap(fact, width, subsequent_indent="  ")]


def _listed(values: Sequence[object]) -> str:
    return ", ".join(str(value) for value in values)


def _trained(seconds: object) -> str:
    return "" if seconds is None else duration(seconds)


def _coverage(rows: Any) -> str:
    values = [row["coverage"] for row in rows or () if isinstance(row.get("coverage"), (int, float))]
    return f"{sum(values) / len(values):.2f}" if values else "-"


def _signed(value: object) -> str:
    return f"{value:+.3f}" if isinstance(value, (int, float)) else "-"


def _codes(reasons: Any) -> str:
    codes = (
        str(reason.get("code")) if isinstance(reason, Mapping) else str(reason).partition(":")[0]
        for reason in reasons or ()
    )
    return _listed(list(dict.fromkeys(codes)))


def _reason(reason: Any) -> str:
    if isinstance(reason, Mapping):
        return one_line(reason.get("message") or reason.get("code"))
    return CODE.sub("", one_line(reason))
