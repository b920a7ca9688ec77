"""Files whose rows are out of order, repeated, late or missing, or whose values are unusual."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta

import numpy as np

from flts.forecasting.series import FloatArray
from tests.case_files.case import Case, Moments, Read, Refused, cells, csv_of, days, every, hours, seconds, texts, wave

ROWS = 400
HOURS = hours(ROWS)
TIMES = texts(HOURS)
FLOW = wave(ROWS)
DAYS = days(600)


def row_cases() -> Iterator[Case]:
    """Yield files with unusual rows or unusual values."""
    yield from _order()
    yield from _repeats()
    yield from _late()
    yield from _steps()
    yield from _series()
    yield from _missing()
    yield from _implausible()
    yield from _shapes()


def _read(*words: str, values: FloatArray = FLOW, test: int | None = None) -> Read:
    return Read("1 h", seconds(HOURS), {"flow": values}, words=words, test=test)


def _text(rows: list[str] | None = None, *, times: list[str] | None = None, column: str = "flow") -> bytes:
    return csv_of(TIMES if times is None else times, {column: cells(FLOW) if rows is None else rows}).encode()


def _lines(lines: list[str]) -> bytes:
    return "\n".join(["time,flow", *lines, ""]).encode()


def _order() -> Iterator[Case]:
    lines = [f"{time},{cell}" for time, cell in zip(TIMES, cells(FLOW), strict=True)]
    yield Case("newest-first", _lines(lines[::-1]), _read("sorted by time", "the newest row is the first"))
    shuffled = random.Random(3).sample(lines, ROWS)
    yield Case("no-order", _lines(shuffled), _read("sorted by time", "not in the order of time"))


def _repeats() -> Iterator[Case]:
    lines = [f"{time},{cell}" for time, cell in zip(TIMES, cells(FLOW), strict=True)]
    again = lines[:]
    for at in (350, 200, 120, 40):
        again.insert(at, lines[at])
    yield Case("same-row-twice", _lines(again), _read("4 rows repeat an earlier row exactly"))
    other = lines[:]
    for at in (350, 200, 120, 40):
        other.insert(at + 1, f"{TIMES[at]},{FLOW[at] + 2:.2f}")
    text = _lines(other)
    twice = np.isin(np.arange(ROWS), (350, 200, 120, 40))
    said = ("8 rows share 4 times", "the first is 2023-05-09T16:00:00", "DUPLICATES=mean")
    yield Case("two-values-one-time", text, _read(*said, values=np.where(twice, FLOW + 1, FLOW)))
    last = _read("DUPLICATES=last", values=np.where(twice, np.round(FLOW + 2, 2), FLOW))
    yield Case("two-values-last", text, last, settings={"DUPLICATES": "last"})
    words = ("8 rows share 4 times", "DUPLICATES=refuse", "mean, last and first")
    yield Case("two-values-refused", text, Refused("duplicate_times", "time", words), settings={"DUPLICATES": "refuse"})


def _late() -> Iterator[Case]:
    moments = every(timedelta(minutes=10), 500, HOURS[0])
    values = wave(500, season=144)
    late = np.random.default_rng(8).integers(0, 3, 500)
    late[0] = 0
    delayed = [when + timedelta(seconds=int(by)) for when, by in zip(moments, late, strict=True)]
    text = csv_of(texts(delayed), {"flow": cells(values)}).encode()
    words = ("up to 2 s off the step (10 min) and were moved to it",)
    yield Case("seconds-late", text, Read("10 min", seconds(delayed), {"flow": values}, words=words))
    clocks = [when.replace(hour=6, second=at % 3) for at, when in enumerate(DAYS)]
    visits = wave(600, season=7, decimals=0)
    text = csv_of(texts(clocks), {"visits": cells(visits, 0)}).encode()
    right = Read("1 day", seconds(clocks), {"visits": visits}, words=("up to 2 s off the step (1 day)",))
    yield Case("seconds-late-in-turn", text, right)
    parts = np.random.default_rng(9).integers(0, 1000, 500)
    times = [f"{when:%Y-%m-%dT%H:%M:%S}.{part:03d}Z" for when, part in zip(moments, parts, strict=True)]
    rounded = seconds(moments) + (parts >= 500)
    text = csv_of(times, {"flow": cells(values)}).encode()
    words = ("fractions of a second are rounded to whole seconds", "up to 1 s off the step")
    yield Case("fractions-of-seconds", text, Read("10 min", rounded, {"flow": values}, words=words))


def _steps() -> Iterator[Case]:
    fine = every(timedelta(minutes=15), 720, HOURS[-1])[1:]
    moments = [*HOURS, *fine]
    values = np.concatenate([FLOW, wave(719, season=96)])
    text = csv_of(texts(moments), {"flow": cells(values)}).encode()
    words = ("1 h apart up to 2023-05-24T15:00:00Z", "15 min apart", "STEP=1 h", "STEP=15 min")
    yield Case("finer-later", text, Refused("change_of_step", "STEP", words))
    yield Case("finer-later-averaged", text, _as_read("1 h", moments, values, test=116), settings={"STEP": "1h"})
    yield Case("finer-later-alone", text, _as_read("15 min", moments, values, test=144), settings={"STEP": "15 min"})
    late = HOURS[:200] + [when + timedelta(days=9) for when in HOURS[200:]]
    text = _text(times=texts(late))
    words = ("long gaps cut the training rows into 2 pieces",)
    yield Case("a-week-without-rows", text, Read("1 h", seconds(late), {"flow": FLOW}, words=words))


def _as_read(step: str, moments: Moments, values: FloatArray, *, test: int) -> Read:
    return Read(step, seconds(moments), {"flow": values}, test=test)


def _series() -> Iterator[Case]:
    east, west = FLOW, wave(ROWS, level=140, seed=9)
    rows = {"y": [*cells(east), *cells(west)], "unique_id": ["east"] * ROWS + ["west"] * ROWS}
    text = csv_of([*TIMES, *TIMES], rows, time="ds").encode()
    said = ("2 series in column unique_id become columns (SERIES_COLUMN)",)
    both = Read("1 h", seconds(HOURS), {"east": east, "west": west}, words=said)
    yield Case("long-table", text, both)
    text = text.replace(b"unique_id", b"station")
    words = ("2 series in column station", "SERIES_COLUMN=station")
    yield Case("long-table-other-name", text, Refused("several_series", "station", words))
    yield Case(
        "long-table-name-given",
        text,
        Read("1 h", seconds(HOURS), {"east": east, "west": west}, words=("series in column station",)),
        settings={"SERIES_COLUMN": "station"},
    )


def _missing() -> Iterator[Case]:
    blank = [*cells(FLOW[:-30]), *[""] * 30]
    values = np.concatenate([FLOW[:-30], np.full(30, np.nan)])
    words = ("the last 30 rows have no value", "the forecast begins there")
    yield Case("blank-end", _text(blank), _read(*words, values=values, test=74))
    train = csv_of(TIMES[:320], {"flow": cells(FLOW[:320])}).encode()
    test = csv_of(TIMES[320:], {"flow": [""] * 80}).encode()
    words = ("no value of flow", "nothing to judge on")
    yield Case("blank-test", train, Refused("no_values", "test", words), test=test)
    test = csv_of(TIMES[320:], {"flow": cells(FLOW[320:])}).encode()
    right = Read("1 h", seconds(HOURS[:320]), {"flow": FLOW[:320]}, test=80)
    yield Case("two-files", train, right, test=test)
    moments = HOURS[:-15] + HOURS[-14:]
    values = np.delete(FLOW, -15)
    text = csv_of(texts(moments), {"flow": cells(values)}).encode()
    words = ("1 missing rows of short gaps were filled",)
    yield Case("one-row-missing", text, Read("1 h", seconds(moments), {"flow": values}, test=80, words=words))


def _implausible() -> Iterator[Case]:
    values = FLOW.copy()
    values[150] = 2.5e6
    words = ("column flow: 2.5e+06 at 2023-05-14T06:00:00Z", "counts as missing")
    yield Case("one-cell-far-away", _text(cells(values)), _read(*words, values=values))
    values = np.where(np.arange(ROWS) % 60 == 5, -999.0, FLOW)
    words = ("column flow: -999", "implausible cells of the column: 7", "counts as missing")
    yield Case("code-for-missing", _text(cells(values)), _read(*words, values=values))


def _shapes() -> Iterator[Case]:
    """Yield tables that are read as they are; the difficulty is their forecast."""
    valve = np.where(np.arange(ROWS) < 320, 0.0, 1.0)
    text = csv_of(TIMES, {"flow": cells(FLOW), "valve": cells(valve, 0)}).encode()
    words = ("constant in the training rows, answered by the constant: valve",)
    yield Case("late-switch", text, Read("1 h", seconds(HOURS), {"flow": FLOW, "valve": valve}, words=words))
    level = np.where(np.arange(600) < 480, 0, np.arange(600) - 480)
    yield _daily("climbing-at-the-end", np.round(wave(600, season=7, level=1300) + level))
    counts = np.random.default_rng(12).poisson(0.4, 600).astype(float)
    yield _daily("counts", counts)
    yield _daily("growth", np.round(800 * np.exp(np.arange(600) / 210) + wave(600, season=7, level=0)))
    light = np.maximum(0, np.sin(2 * np.pi * (np.arange(ROWS) % 24 - 6) / 24)) * wave(ROWS, level=3, spread=0.4)
    light = np.round(light, 3)
    right = Read("1 h", seconds(HOURS), {"power": light})
    yield Case("sun-power", csv_of(TIMES, {"power": cells(light, 3)}).encode(), right)
    yield Case("renamed-before", _text(column="load"), Read("1 h", seconds(HOURS), {"load": FLOW}))
    yield Case("renamed-after", _text(column="power"), Read("1 h", seconds(HOURS), {"power": FLOW}))


def _daily(name: str, values: FloatArray) -> Case:
    text = csv_of(texts(DAYS, "%Y-%m-%d"), {"visits": cells(values, 0)}, time="date").encode()
    return Case(name, text, Read("1 day", seconds(DAYS), {"visits": values}))
