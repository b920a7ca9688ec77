"""Rows of a request to ``/predict`` and how it answers, for ``docs/data.md``."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from flts.errors import RejectedError
from flts.forecasting.file_form import FileForm
from flts.forecasting.grid import HOUR, FixedGrid, Grid
from flts.forecasting.step_setting import grid_of
from flts.recipe_settings import RecipeSettings
from flts.times import TimeFormat
from inference_container.domain.request import Needs, decode_request, read_rows

HOURS = [f"2024-01-01T{hour:02d}:00:00" for hour in range(12)]
BUSINESS_DAYS = ["2024-01-03", "2024-01-04", "2024-01-05", "2024-01-08", "2024-01-09"]
REQUESTS = (
    ("hourly rows, one of them missing", HOURS[:6] + HOURS[7:], "1 h"),
    ("hourly rows, one of them 5 s late", [*HOURS[:6], "2024-01-01T06:00:05", *HOURS[7:]], "1 h"),
    ("hourly rows after a gap that is too long", [*HOURS, "2024-01-03T00:00:00"], "1 h"),
    ("hourly rows, the newest first", HOURS[::-1], "1 h"),
    ("a row that is repeated", [HOURS[0], *HOURS], "1 h"),
    ("business days", BUSINESS_DAYS, "1 business day"),
    ("business days and a Saturday", [*BUSINESS_DAYS[:3], "2024-01-06", *BUSINESS_DAYS[3:]], "1 business day"),
    ("times as the file writes them", [f"01.01.2024 {hour:02d}:00" for hour in range(12)], "1 h"),
)
"""Rows in words, their times, and the step of the champion."""


def requests() -> Iterator[str]:
    """Yield the table of requests and answers."""
    yield from ("| rows | step | answer |", "|---|---|---|")
    for rows, times, step in REQUESTS:
        yield f"| {rows} | `{step}` | {_answer(times, _grid(step))} |"


def _answer(times: list[str], grid: Grid) -> str:
    needs = Needs(
        columns=("load",),
        ignored=frozenset(),
        reads_values=True,
        constants=(),
        rows_required=len(BUSINESS_DAYS),
        grid=grid,
        max_gap_steps=int(RecipeSettings.model_fields["max_gap_steps"].default),
        form=FileForm("time", TimeFormat("DD.MM.YYYY HH:mm")),
        max_horizon_steps=1,
        bundle_limits_horizon=False,
    )
    body = json.dumps({"data": {"time": times, "load": [1.0] * len(times)}}).encode()
    try:
        read = read_rows(decode_request(body), needs, max_rows=len(times) * 2)
    except RejectedError as error:
        return f"refused: `{error.code}`, {error.message}"
    filled = int(np.isnan(read.values).any(axis=1).sum())
    return "accepted" + (f", {filled} missing row is filled" if filled else "")


def _grid(step: str) -> Grid:
    return FixedGrid(HOUR) if step == "1 h" else grid_of(np.array([0]), step)
