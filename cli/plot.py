"""Plot a forecast: the last rows, the forecast and its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib.dates as mdates
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from cli.render import calibrated_steps, forecast_targets
from flts.errors import RejectedError
from flts.times import TimeFormat, to_local
from flts.times.zones import SECOND

MOST_PANELS = 4
PAST = "#4a5568"
FUTURE = "#c2410c"
GRID = "#d8dde3"


def plot_forecast(
    context: Mapping[str, Any],
    answer: Mapping[str, Any],
    path: Path,
    *,
    targets: Sequence[str] = (),
    context_rows: int | None = None,
) -> Path:
    """Plot the last rows and the forecast that follows them, and write the picture to a file.

    Parameters
    ----------
    context : mapping
        The request: ``{"index_col", "data"}``.
    answer : mapping
        The answer of /predict.
    path : Path
        The file to write; its ending (.png, .svg, .pdf) chooses the format.
    targets : sequence of str
        The targets to plot; by default the first four.
    context_rows : int, optional
        The number of last rows to draw; by default twice the horizon, and at least 60.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    ValueError
        If a target is not in the answer.
    """
    known = forecast_targets(answer)
    unknown = [target for target in targets if target not in known]
    if unknown:
        msg = f"{', '.join(unknown)}: not a target of this forecast; it has {', '.join(known)}"
        raise ValueError(msg)
    chosen = list(targets) or known[:MOST_PANELS]
    predictions = answer["predictions"]
    rows = context_rows or max(60, 2 * len(predictions))
    figure = Figure(figsize=(10, 1.4 + 2.6 * len(chosen)), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(chosen), 1, sharex=True, squeeze=False)[:, 0]
    for axis, target in zip(axes, chosen, strict=True):
        _panel(axis, context, answer, target, rows)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", frameon=False, fontsize=9, ncols=3)
    form = _form(answer)
    axes[-1].set_xlabel(f"time ({form.zone if form is not None and form.zone else 'UTC'})")
    locator = mdates.AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call] # matplotlib has no types
    axes[-1].xaxis.set_major_locator(locator)
    axes[-1].xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call] # matplotlib has no types
    figure.suptitle(_title(answer, len(predictions)), fontsize=13, fontweight="bold", x=0.01, ha="left")
    caption = "values in the data's own units"
    if len(known) > len(chosen) and not targets:
        caption += f"; {len(known) - len(chosen)} more targets were forecast: {', '.join(known[MOST_PANELS:])}"
    figure.supxlabel(caption, fontsize=8, color=PAST)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _panel(axis: Axes, context: Mapping[str, Any], answer: Mapping[str, Any], target: str, rows: int) -> None:
    form = _form(answer)
    past_times, past = _past(context, target, rows, form)
    times = parse_times([row["ts"] for row in answer["predictions"]], form)
    mean = _column(answer, target)
    lower, upper = _column(answer, f"{target}_lower"), _column(answer, f"{target}_upper")
    if past_times:
        axis.plot(_dates(past_times), past, color=PAST, linewidth=1.2, label="measured")
        # The forecast's line starts at the last measurement before it, so that the plot shows no gap. Later ones are
        # there if the forecast is one of held-out rows.
        last = max(0, sum(time < times[0] for time in past_times) - 1)
        joined = np.concatenate([past[last : last + 1], mean])
        axis.plot(_dates([past_times[last], *times]), joined, color=FUTURE, linewidth=1.6, label="forecast")
        axis.axvline(float(_dates([past_times[last]])[0]), color=PAST, linewidth=0.8, linestyle=":")
    else:
        axis.plot(_dates(times), mean, color=FUTURE, linewidth=1.6, label="forecast")
    if np.isfinite(lower).any() and np.isfinite(upper).any():
        _interval(axis, _dates(times), lower, upper, calibrated_steps(answer))
    for at, level in enumerate(answer.get("quantiles") or ()):
        name = "quantiles" if at == 0 else None
        axis.plot(
            _dates(times),
            _column(answer, f"{target}_q{level!r}"),
            color=FUTURE,
            linewidth=0.7,
            linestyle="--",
            label=name,
        )
    axis.set_ylabel(target)
    axis.yaxis.set_major_formatter(EngFormatter(sep=" "))
    axis.grid(color=GRID, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.margins(x=0.01)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _interval(
    axis: Axes, dates: np.ndarray[Any, Any], lower: np.ndarray[Any, Any], upper: np.ndarray[Any, Any], calibrated: int
) -> None:
    """Draw the bounds, paler beyond the calibrated steps, with a thin line at the last of these."""
    axis.fill_between(
        dates[:calibrated],
        lower[:calibrated],
        upper[:calibrated],
        color=FUTURE,
        alpha=0.18,
        linewidth=0,
        label="90 % interval",
    )
    if calibrated < len(dates):
        rest = slice(calibrated - 1, None)  # from the last calibrated step, so that the band has no gap
        beyond = "not calibrated"
        axis.fill_between(dates[rest], lower[rest], upper[rest], color=FUTURE, alpha=0.07, linewidth=0, label=beyond)
        axis.axvline(float(dates[calibrated - 1]), color=FUTURE, linewidth=0.8, linestyle=":")


def _past(
    context: Mapping[str, Any], target: str, rows: int, form: TimeFormat | None
) -> tuple[list[datetime], np.ndarray[Any, Any]]:
    data = context.get("data") or {}
    times = data.get(context.get("index_col")) or []
    values = data.get(target)
    if not times or values is None:
        return [], np.empty(0)
    past = np.array([np.nan if value is None else float(value) for value in values[-rows:]])
    return parse_times(times[-rows:], form), past


def _column(answer: Mapping[str, Any], name: str) -> np.ndarray[Any, Any]:
    values = (row.get(name) for row in answer["predictions"])
    return np.array([np.nan if value is None else float(value) for value in values])


def _title(answer: Mapping[str, Any], steps: int) -> str:
    return f"{answer.get('identifier')}: {steps} steps ahead by {answer.get('model_type')}"


def _dates(times: Sequence[datetime]) -> np.ndarray[Any, Any]:
    return np.asarray(mdates.date2num(list(times)))  # type: ignore[no-untyped-call] # matplotlib has no types


def _form(answer: Mapping[str, Any]) -> TimeFormat | None:
    values = answer.get("time_format")
    return None if values is None else TimeFormat.from_dict(values)


def parse_times(values: Sequence[Any], form: TimeFormat | None) -> list[datetime]:
    """Return times of a request or an answer, as UTC or as the clock of the form's zone shows them.

    Parameters
    ----------
    values
        Times in the form, or else in ISO 8601 or epoch seconds.
    form
        The answer's ``time_format``.
    """
    if form is None:
        return [parse_time(value) for value in values]
    try:
        seconds = form.read(values)
    except RejectedError:
        seconds = np.array([int(parse_time(value).timestamp()) for value in values], np.int64)
    local = seconds * SECOND if form.zone is None else to_local(seconds * SECOND, form.zone)
    return [datetime.fromtimestamp(int(moment) // SECOND, UTC) for moment in local]


def parse_time(value: object) -> datetime:
    """Return a time of a request or an answer as UTC; accepts ISO 8601 (naive is UTC) and epoch seconds."""
    if isinstance(value, (int, float)):
        return datetime.fromtimestamp(value, UTC)
    moment = datetime.fromisoformat(str(value))
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
