"""Draw the README's pictures: ``python -m tools.pictures``.

Starts the embedded pipeline in a temporary folder, uploads the generated sample, and draws two pictures of the run into
``docs/pictures``: ``forecast.png``, a forecast beside rows that were held out, and ``scoreboard.png``, the output of
``flts why sample``. Run it on a quiet machine: the scoreboard shows the training times.
"""

from __future__ import annotations

import io
import tempfile
import textwrap
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.dates as mdates
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from cli.__main__ import main as flts
from cli.client import ApiError, GatewayClient
from cli.commands import watch
from cli.plot import FUTURE, GRID, PAST, parse_time
from embedded.settings import EmbeddedSettings
from embedded.stack import Stack
from flts.ingest.sample import SAMPLE_IDENTIFIER, write_sample

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "pictures"
TARGET = "visitors"
HISTORY_ROWS = 144
"""Rows: six days of the sample."""
HORIZON_STEPS = 24
SENT_ROWS = 200
SERVED_SECONDS = 60.0
"""Longest wait until the new champion is served."""
TIMEOUT_SECONDS = 1800.0
"""Longest wait for the decision."""
WIDTH_INCHES = 8.3
DPI = 180
COLOURS = 64
COLUMNS = 100
"""Width of the drawn terminal, unless a table is wider; longer lines of text are wrapped."""
GAP = "  "
"""Separates the columns of a table; text has single spaces."""
MARGIN_COLUMNS = 2
POINTS_PER_INCH = 72
ADVANCE = 0.602
"""Width of a character of DejaVu Sans Mono, a font of matplotlib, as a fraction of the font size."""
CARD = "#ffffff"
TERMINAL = "#1b2230"
TEXT = "#e2e8f0"
DIM = "#94a3b8"
BEST = "#7ee2a8"


@dataclass(frozen=True, slots=True)
class Shown:
    """The content of the two pictures."""

    lines: list[str]
    """The command `flts why sample` and its output."""
    before: Mapping[str, Any]
    """The request: the rows before the forecast."""
    after: Mapping[str, Any]
    """The rows that the request left out, one per step of the forecast."""
    answer: Mapping[str, Any]
    """The answer of /predict."""


def main() -> int:
    """Run the pipeline once and draw both pictures."""
    with tempfile.TemporaryDirectory() as folder:
        shown = run_sample(Path(folder))
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, figure in (("forecast", draw_forecast(shown)), ("scoreboard", draw_lines(shown.lines))):
        print(f"wrote docs/pictures/{save(figure, FOLDER / f'{name}.png').name}")
    return 0


def run_sample(home: Path) -> Shown:
    """Upload the sample to a new pipeline, and request a forecast of the last rows of the test file."""
    free = {name: 0 for name in EmbeddedSettings.model_fields if name.endswith("_port")}
    settings = EmbeddedSettings.load().model_copy(update={"flts_home": home, "store": "filesystem", **free})
    train, test = write_sample(home / "sample")
    with Stack(settings, print) as stack:
        stack.wait_ready()
        with GatewayClient(stack.endpoints.gateway_url, stack.api_key) as client:
            # A refit is fitted on the rows that the picture shows as held out.
            run = client.upload(SAMPLE_IDENTIFIER, train, test, settings={"REFIT": False})
            view = watch(client, str(run["pipeline_run_id"]), timeout_seconds=TIMEOUT_SECONDS)
            needed = len(next(iter(client.tail(SAMPLE_IDENTIFIER)["data"].values())))
            rows = client.tail(SAMPLE_IDENTIFIER, rows=max(SENT_ROWS, needed) + HORIZON_STEPS)
            before, after = split_rows(rows, HORIZON_STEPS)
            answer = _forecast(client, before, run_id=str(view["decision"]["run_id"]))
        output = io.StringIO()
        with redirect_stdout(output):
            flts(["why", SAMPLE_IDENTIFIER, "--url", stack.endpoints.gateway_url])
    return Shown([f"$ flts why {SAMPLE_IDENTIFIER}", *output.getvalue().splitlines()], before, after, answer)


def split_rows(rows: Mapping[str, Any], last: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a request's rows without the last ones, and the last ones."""
    data = rows["data"]
    before, after = (
        {name: values[part] for name, values in data.items()} for part in (slice(None, -last), slice(-last, None))
    )
    return {**rows, "data": before}, {**rows, "data": after}


def draw_forecast(shown: Shown) -> Figure:
    """Draw the last rows, the forecast with its interval, and the rows measured afterwards."""
    past_times, past = _column(shown.before, HISTORY_ROWS)
    times, measured = _column(shown.after, HORIZON_STEPS)
    mean, lower, upper = (
        np.array([float(row[f"{TARGET}{end}"]) for row in shown.answer["predictions"]])
        for end in ("", "_lower", "_upper")
    )
    figure = Figure(
        figsize=(WIDTH_INCHES, 3.3), dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.1), facecolor=CARD
    )
    axis = figure.subplots()
    axis.plot(past_times, past, color=PAST, linewidth=1.1, label="measured")
    axis.plot([past_times[-1], *times], [past[-1], *mean], color=FUTURE, linewidth=2, label="forecast")
    axis.fill_between(times, lower, upper, color=FUTURE, alpha=0.16, linewidth=0, label="90 % interval")
    axis.plot(times, measured, color=PAST, linewidth=0, marker="o", markersize=3.2, label="measured later (held out)")
    axis.axvline(past_times[-1], color=PAST, linewidth=0.8, linestyle=":")
    title = f"{TARGET}: {HORIZON_STEPS} steps ahead, by {shown.answer['model_type']}"
    axis.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axis.set_xlabel("time (UTC)")
    axis.grid(color=GRID, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.margins(x=0.01)
    axis.spines[["top", "right"]].set_visible(False)
    locator = mdates.AutoDateLocator(minticks=4, maxticks=8)  # type: ignore[no-untyped-call] # matplotlib has no types
    axis.xaxis.set_major_locator(locator)
    formatter = mdates.ConciseDateFormatter(locator, show_offset=False)  # type: ignore[no-untyped-call] # matplotlib has no types
    axis.xaxis.set_major_formatter(formatter)
    axis.legend(loc="upper right", fontsize=8.5)
    return figure


def draw_lines(lines: Sequence[str]) -> Figure:
    """Draw the output of a command as a terminal shows it."""
    columns = max([COLUMNS, *(len(line) for line in lines if GAP in line)])
    shown = [part for line in lines for part in textwrap.wrap(line, columns, drop_whitespace=False) or [""]]
    font = WIDTH_INCHES * POINTS_PER_INCH / (columns + 2 * MARGIN_COLUMNS) / ADVANCE
    row = 1.45 * font / POINTS_PER_INCH
    height = row * (len(shown) + 1)
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DPI, facecolor=TERMINAL)
    left = MARGIN_COLUMNS / (columns + 2 * MARGIN_COLUMNS)
    for at, line in enumerate(shown):
        colour = BEST if line.startswith(("*", "promoted")) else DIM if line.startswith(("$", "run", "cause")) else TEXT
        figure.text(
            left, 1 - (at + 1) * row / height, line, family="DejaVu Sans Mono", size=font, color=colour, va="center"
        )
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG with a palette of `COLOURS` colours, which makes it a third as large."""
    FigureCanvasAgg(figure)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    Image.open(drawn).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def _forecast(client: GatewayClient, body: Mapping[str, Any], *, run_id: str) -> dict[str, Any]:
    """Request a forecast until the champion of this run answers."""
    deadline = time.monotonic() + SERVED_SECONDS
    while time.monotonic() < deadline:
        with suppress(ApiError):  # a request fails while the replica fetches the champion
            answer = client.forecast(dict(body), horizon=HORIZON_STEPS, identifier=SAMPLE_IDENTIFIER)
            if answer["run_id"] == run_id:
                return answer
        time.sleep(0.2)
    msg = f"the model of run {run_id} is not served after {SERVED_SECONDS:g} s"
    raise TimeoutError(msg)


def _column(rows: Mapping[str, Any], last: int) -> tuple[list[Any], list[float]]:
    data = rows["data"]
    return [parse_time(time) for time in data[rows["index_col"]][-last:]], [
        float(value) for value in data[TARGET][-last:]
    ]


if __name__ == "__main__":
    raise SystemExit(main())
