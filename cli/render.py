"""Format the gateway's answers as lines of text: pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from cli.causes import short_cause
from cli.scoreboard import MARK, WIDTH, decision_lines, scoreboard_table, target_table
from cli.text import duration, fixed, moment, number, one_line, table, utc
from flts.contracts.champion_stage import DECIDED, stage_of

__all__ = [
    "calibrated_steps",
    "datasets_table",
    "decision_lines",
    "event_line",
    "explained_share",
    "forecast_table",
    "forecast_targets",
    "models_table",
    "progress_rows",
    "run_heading",
    "run_progress",
    "runs_table",
    "scoreboard_table",
    "stage_table",
    "target_table",
    "upload_lines",
]

Record = Mapping[str, Any]
_Column = tuple[str, Callable[[Record], str]]
"""Header of a column of a forecast, and its cell in a row of the answer."""

BEYOND = "~"
HEADERS_PROGRESS = ("stage", "state", "epoch", "loss", "elapsed")


def progress_rows(view: Record, *, now: datetime | None = None) -> list[tuple[str, str, str, str, str]]:
    """Return (stage, state, epoch, loss, elapsed) of each stage that has a record or live progress."""
    live: Mapping[str, Record] = view.get("progress") or {}
    rows = []
    seen = set()
    for stage in view.get("stages") or ():
        name = str(stage["stage"])
        seen.add(name)
        rows.append(_progress_row(name, stage, live.get(name), now))
    rows.extend(_progress_row(name, None, record, now) for name, record in live.items() if name not in seen)
    return rows


def run_progress(view: Record, *, now: datetime | None = None) -> list[str]:
    """Return a run's progress as a table under a heading."""
    return [
        run_heading(view),
        *table(HEADERS_PROGRESS, progress_rows(view, now=now), right=("epoch", "loss", "elapsed")),
    ]


def run_heading(view: Record) -> str:
    """Return one line with the run's identifier, id and state."""
    state = view.get("outcome") or view.get("state") or "unknown"
    took = duration(view.get("elapsed_seconds"))
    return f"run {view.get('pipeline_run_id')} on {view.get('identifier')}: {state}, {took}"


def event_line(kind: str, data: Record) -> str | None:
    """Return one event of a run as one line, or None for an unknown kind of event."""
    if kind == "state":
        return run_heading(data)
    if kind == "progress":
        return "  ".join(_progress_words(data))
    if kind == "stage":
        words = [str(data.get("stage")).ljust(13), str(data.get("status")).ljust(9)]
        if data.get("end"):
            words.append(duration(data.get("seconds")))
        if data.get("error"):
            words.append(one_line(data["error"]))
        return "  ".join(words).rstrip()
    if kind == "end":
        return run_heading(data)
    return None


def stage_table(view: Record) -> list[str]:
    """Return each stage's start and duration, and the share of the run's time that the stages cover."""
    stages = [stage for stage in view.get("stages") or () if stage.get("start")]
    rows = []
    begin = min((moment(stage["start"]) for stage in stages), default=None)
    for stage in stages:
        start = moment(stage["start"])
        offset = (start - begin).total_seconds() if begin is not None else 0.0
        rows.append((stage["stage"], stage.get("status"), f"{offset:.1f} s", duration(stage.get("seconds"))))
    lines = table(("stage", "status", "began after", "took"), rows, right=("began after", "took"))
    explained = explained_share(view)
    if explained is not None:
        total = duration(view.get("elapsed_seconds"))
        lines.append(f"from upload to outcome {total}, of which the stages explain {explained:.0%}")
    return lines


def explained_share(view: Record) -> float | None:
    """Return the share of a finished run's time in which at least one stage ran, or None if times are missing."""
    total = view.get("elapsed_seconds")
    details = view.get("outcome_details") or {}
    spans = sorted(
        (moment(stage["start"]), moment(stage["end"]))
        for stage in view.get("stages") or ()
        if stage.get("start") and stage.get("end")
    )
    if not isinstance(total, (int, float)) or total <= 0 or not spans or not details.get("at"):
        return None
    ended = moment(details["at"])
    covered, reached = 0.0, spans[0][0]
    for start, end in spans:
        begin, stop = max(start, reached), min(end, ended)
        covered += max(0.0, (stop - begin).total_seconds())
        reached = max(reached, stop)
    return min(1.0, covered / total)


def upload_lines(answer: Record) -> list[str]:
    """Return the gateway's report of an upload, and the run that it started."""
    lines = [f"run {answer.get('pipeline_run_id')} on {answer.get('identifier')}"]
    if answer.get("repeated"):
        lines.append("the same upload had started this run before; nothing was doubled")
    report = answer.get("report") or {}
    for name in ("train", "test"):
        part = report.get(name)
        if part:
            worst = max((part.get("missing_share") or {"": 0}).values())
            lines.append(
                f"  {name:5}  {part['rows']:,} rows, {part['start']} to {part['end']}, "
                f"{part['gap_count']} gaps, at most {worst:.1%} of a column missing"
            )
    if report:
        columns = report.get("columns") or ()
        lines.append(
            f"  {len(columns)} column{'' if len(columns) == 1 else 's'}, "
            f"step {report.get('step') or duration(report.get('step_seconds'))}, "
            f"targets: {', '.join(report.get('targets') or ())}"
        )
        lines += [f"  {role}" for role in _other_roles(report)]
    if report.get("horizon_steps"):
        lines.append(f"  horizon: {report['horizon_steps']:,} steps are judged and served (HORIZON)")
    lines += [f"  {fact}" for fact in report.get("understood") or ()]
    lines += [f"  ! {warning}" for warning in report.get("warnings") or ()]
    if not answer.get("announced", True):
        lines.append("  ! the broker does not answer yet; the run is announced as soon as it does")
    return lines


def runs_table(runs: Sequence[Record]) -> list[str]:
    """Return the list of runs."""
    if not runs:
        return ["no runs yet; start one: flts upload NAME train.csv --follow"]
    rows = [
        (
            run.get("pipeline_run_id"),
            run.get("identifier"),
            short_cause(run),
            run.get("outcome") or run.get("state"),
            run.get("model_type"),
            fixed(run.get("score")),
            duration(run.get("elapsed_seconds")),
            utc(run.get("created_at")),
        )
        for run in runs
    ]
    headers = ("run", "data set", "cause", "state", "model", "score", "took", "started (UTC)")
    return table(headers, rows, right=("score", "took"))


def datasets_table(datasets: Sequence[Record]) -> list[str]:
    """Return the list of data sets."""
    if not datasets:
        return ["no data sets yet; upload one: flts upload NAME train.csv --follow"]
    rows = []
    for one in datasets:
        upload, last = one.get("newest_upload") or {}, one.get("last_run") or {}
        champion = one.get("champion") or {}
        rows.append(
            (
                one.get("identifier"),
                utc(upload.get("uploaded_at")),
                one.get("runs"),
                last.get("outcome") or last.get("state"),
                _with_stage(champion),
                fixed(champion.get("score")),
            )
        )
    headers = ("data set", "uploaded (UTC)", "runs", "last run", "champion", "score")
    return table(headers, rows, right=("runs", "score"))


def models_table(answer: Record) -> list[str]:
    """Return the list of champions that are served, and why those that are baselines are."""
    models = answer.get("models") or ()
    if not models:
        return ["no champion yet; `flts runs` shows what is being trained"]
    rows = [
        (
            MARK if model.get("identifier") == answer.get("default") else "",
            model.get("identifier"),
            _with_stage(model),
            fixed(model.get("score")),
            model.get("horizon_steps"),
            str(model.get("run_id") or "-")[:8],
            utc(model.get("promoted")),
            model.get("problem") or ("served" if model.get("loaded") else "loads on demand"),
        )
        for model in models
    ]
    headers = ("", "data set", "model", "score", "horizon", "run id", "since (UTC)", "state")
    lines = table(headers, rows, right=("score", "horizon"))
    if answer.get("default"):
        lines.append(f"{MARK} answers requests that name no data set")
    served = ((model.get("identifier"), model.get("baseline")) for model in models)
    lines += [f"  - {identifier}: {one_line(reason)}" for identifier, reason in served if reason]
    ahead = ((model.get("identifier"), model.get("future_columns")) for model in models)
    return [
        *lines,
        *(f"  - {name}: a forecast needs future values of {', '.join(columns)}" for name, columns in ahead if columns),
    ]


def forecast_table(
    answer: Record, *, targets: Sequence[str] = (), most_rows: int = 12, width: int = WIDTH
) -> list[str]:
    """Return a forecast with its intervals; of more than ``most_rows`` rows only the first and last are shown.

    Steps beyond those that the intervals are calibrated for are marked. Quantiles, if there are any, have a table per
    target instead of the intervals, or several tables if a line had more than ``width`` characters.
    """
    predictions: Sequence[Record] = answer.get("predictions") or ()
    shown_targets = list(targets) or forecast_targets(answer)
    calibrated = calibrated_steps(answer)
    beyond = calibrated < len(predictions)
    first = ("", "step", "ts") if beyond else ("step", "ts")

    def lines_of(columns: Sequence[_Column]) -> list[str]:
        rows: list[tuple[object, ...]] = []
        for at, prediction in enumerate(predictions):
            start = (BEYOND if at >= calibrated else "", at + 1, prediction.get("ts"))
            rows.append((*start[-len(first) :], *(cell(prediction) for _, cell in columns)))
        if len(rows) > most_rows:
            head, last = rows[: most_rows - most_rows // 3], rows[-(most_rows // 3) :]
            gap = tuple("..." if name == "step" else "" for name in (*first, *(name for name, _ in columns)))
            rows = [*head, gap, *last]
        names = [name for name, _ in columns]
        return table([*first, *names], rows, right=("step", *names))

    heading = f"{answer.get('model_type')} (run id {str(answer.get('run_id'))[:8]}) on {answer.get('identifier')}"
    held = [name for name in answer.get("held_targets") or () if name in shown_targets]
    notes = [
        f"  ! {name} never changed in the training rows and has changed since: its last value is held" for name in held
    ]
    if beyond:
        notes.insert(0, f"{BEYOND} beyond the {calibrated} step(s) that the intervals are calibrated for")
    if answer.get("baseline"):
        notes.append(f"  ! {one_line(answer['baseline'])}")
    if answer.get("warning"):
        notes.append(f"  ! {one_line(answer['warning'])}")
    if levels := answer.get("quantiles"):
        blocks = [_quantile_blocks(target, levels, lines_of, width) for target in shown_targets]
        shown = [line for block in blocks for line in block]
    else:
        shown = lines_of([column for target in shown_targets for column in _interval_columns(target)])
    return [heading, *shown, *notes]


def calibrated_steps(answer: Record) -> int:
    """Return the number of forecast steps whose intervals are calibrated; all of them if nothing else is known.

    A forecast without intervals has nothing to mark, so all of its steps count too.
    """
    steps = len(answer.get("predictions") or ())
    return min(steps, int(answer.get("calibrated_steps") or steps))


def forecast_targets(answer: Record) -> list[str]:
    """Return the names of an answer's targets, in the order of the answer."""
    predictions: Sequence[Record] = answer.get("predictions") or ({},)
    names = [str(name) for name in predictions[0] if name != "ts"]
    known = set(names)
    ends = ("_lower", "_upper", *(f"_q{level!r}" for level in answer.get("quantiles") or ()))
    others = {f"{name}{end}" for name in names for end in ends if f"{name}{end}" in known}
    return [name for name in names if name not in others]


def _interval_columns(target: str) -> list[_Column]:
    return [_forecast_column(target), (f"{target} 90 %", lambda prediction: _interval(prediction, target))]


def _forecast_column(target: str, name: str | None = None) -> _Column:
    return name or target, lambda prediction: number(prediction.get(target), digits=5)


def _quantile_blocks(
    target: str, levels: Sequence[float], lines_of: Callable[[Sequence[_Column]], list[str]], width: int
) -> list[str]:
    """Return a table of a target's forecast and quantiles, or several, each with as many quantiles as fit."""
    rest = [_forecast_column(f"{target}_q{level!r}", f"q{level!r}") for level in levels]
    shown: list[str] = []
    while rest:
        count = len(rest)
        lines = lines_of([_forecast_column(target), *rest])
        while count > 1 and max(map(len, lines)) > width:
            count -= 1
            lines = lines_of([_forecast_column(target), *rest[:count]])
        shown += lines
        rest = rest[count:]
    return shown


def _progress_row(
    name: str, stage: Record | None, live: Record | None, now: datetime | None
) -> tuple[str, str, str, str, str]:
    status = str(stage.get("status")) if stage else ""
    ended = bool(stage and stage.get("end"))
    live = live or {}
    state = status if ended or not live.get("state") else str(live["state"])
    if stage and stage.get("reused"):
        state += " (reused)"
    epoch = f"{live['epoch']}/{live.get('epochs') or '?'}" if live.get("epoch") is not None else ""
    loss = number(live.get("loss")) if live.get("loss") is not None else ""
    elapsed = stage.get("seconds") if stage else live.get("elapsed")
    if stage and not ended and now is not None and stage.get("start"):
        elapsed = max(0.0, (now - moment(stage["start"])).total_seconds())
    return name, state, epoch, loss, duration(elapsed)


def _progress_words(data: Record) -> list[str]:
    words = [str(data.get("stage")).ljust(13), str(data.get("state")).ljust(9)]
    if data.get("epoch") is not None:
        words.append(f"epoch {data['epoch']}/{data.get('epochs') or '?'}")
    if data.get("loss") is not None:
        words.append(f"loss {number(data['loss'])}")
    if data.get("detail"):
        words.append(one_line(data["detail"]))
    if data.get("elapsed") is not None:
        words.append(duration(data["elapsed"]))
    return words


def _other_roles(report: Record) -> list[str]:
    """Return the roles of the columns that are not forecast, and the holidays."""
    ahead = list(report.get("future_columns") or ())
    used = {*(report.get("targets") or ()), *ahead, *(report.get("dropped_columns") or ())}
    measured = [name for name in report.get("columns") or () if name not in used]
    return [
        f"{role}: {', '.join(names)} ({setting})"
        for role, names, setting in (
            ("known ahead", ahead, "FUTURE_COLUMNS"),
            ("measured, not forecast", measured, "PAST_COLUMNS, TARGETS"),
            ("holidays", report.get("holidays") or (), "HOLIDAYS"),
        )
        if names
    ]


def _with_stage(champion: Record) -> object:
    """Return a champion's model type, with its stage if that is not the usual one, and marked if it is a baseline."""
    name = champion.get("model_type")
    marks = [] if stage_of(champion) == DECIDED else [stage_of(champion)]
    marks += ["baseline"] if champion.get("baseline") else []
    return f"{name} ({', '.join(marks)})" if marks else name


def _interval(prediction: Record, target: str) -> str:
    lower, upper = prediction.get(f"{target}_lower"), prediction.get(f"{target}_upper")
    if lower is None or upper is None:
        return "-"
    return f"{number(lower, digits=5)} .. {number(upper, digits=5)}"
