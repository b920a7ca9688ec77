"""Files as programs write them, and the answers to their uploads, for ``docs/data.md``.

The answers come from the check that the gateway runs on an upload, with the default of each setting.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from cli.arguments import parse_settings
from cli.render import upload_lines
from flts.errors import RejectedError
from gateway_container.checking import CheckSettings, check_files
from gateway_container.domain.same_data import description, refuse_other_data

START = datetime(2024, 1, 1)  # noqa: DTZ001 - the examples have no zone


@dataclass(frozen=True)
class Example:
    """A file and the uploads of it that the page shows."""

    file: str
    write: Callable[[], str]
    sets: tuple[tuple[str, ...], ...] = ((),)
    """The values of ``--set`` of each upload."""
    shown: str = "1,6p"
    """The lines of the file that the page shows, as a command of sed."""
    encoding: str = "utf-8"
    after: Callable[[], str] | None = None
    """The upload before, which this one does not continue."""


def shown(example: Example) -> Iterator[str]:
    """Yield the first lines of a file, and each upload of it with the lines that ``flts`` prints."""
    text = example.write()
    lines = text.splitlines()
    yield "```console"
    if example.encoding == "utf-8":
        yield f"$ sed -n '{example.shown}' {example.file}"
    else:
        yield f"$ iconv -f {example.encoding} {example.file} | sed -n '{example.shown}'"
    for first, last in re.findall(r"(\d+)(?:,(\d+))?p", example.shown):
        yield from lines[int(first) - 1 : int(last or first)]
    for given in example.sets:
        options = "".join(f" --set {_quoted(pair)}" for pair in given)
        yield f"$ flts upload mine {example.file}{options}"
        yield from answer(example, given)
    yield "```"


def answer(example: Example, given: tuple[str, ...]) -> list[str]:
    """Return the lines that ``flts upload`` prints."""
    try:
        found = _check(example.write(), example.encoding, given)
        if example.after is not None:
            before = _check(example.after(), "utf-8", ())
            refuse_other_data("mine", _described(before), _described(found))
    except RejectedError as error:
        field = f"{error.field}: " if error.field and error.field not in error.message else ""
        return [f"flts: {field}{error.message}"]
    return upload_lines({"pipeline_run_id": "RUN", "identifier": "mine", "report": found["report"]})


def _check(text: str, encoding: str, given: tuple[str, ...]) -> dict[str, Any]:
    defaults = {name: field.default for name, field in CheckSettings.model_fields.items()}
    values = {name.lower(): value for name, value in parse_settings(list(given)).items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train"
        path.write_bytes(text.encode(encoding))
        return check_files({"train": str(path), "test": None, "settings": defaults | values}, lambda _: None)


def _described(found: dict[str, Any]) -> dict[str, Any]:
    return description(found["report"], sum(rows for rows in found["rows"] if rows))


def _quoted(pair: str) -> str:
    return f'"{pair}"' if " " in pair else pair


def _values(count: int) -> list[float]:
    steps = np.arange(count)
    values: list[float] = np.round(1_400 + 300 * np.sin(steps / 4) + (steps * 37 % 50), 2).tolist()
    return values


def _table(header: str, times: list[str], *, first: int = 0) -> str:
    values = _values(first + len(times))[first:]
    return "\n".join([header, *(f"{time},{value:.2f}" for time, value in zip(times, values, strict=True)), ""])


def _times(step: timedelta, count: int, form: str = "%Y-%m-%d %H:%M", start: datetime = START) -> list[str]:
    return [(start + at * step).strftime(form) for at in range(count)]


def _meter() -> str:
    hours = [START + timedelta(hours=at) for at in range(240)]
    cells = [f"{value:,.2f}".translate(str.maketrans(",.", ".,")) for value in _values(240)]
    cells[7] = "-"
    rows = [
        f"{hour:%d.%m.%Y};{hour:%H:%M};{cell};ok;{at % 2}"
        for at, (hour, cell) in enumerate(zip(hours, cells, strict=True))
    ]
    above = ["Z\u00e4hler 4711, Halle S\u00fcd", "", "Datum;Uhrzeit;Leistung;Hinweis;T\u00fcr", ";;kW;;"]
    return "\r\n".join([*above, *rows, f"Summe;;{240 * 1_400},00;;", ""])


def _day_or_month() -> str:
    return _table("Date,sales", [f"01/{month:02d}/2024" for month in range(1, 13)])


def _shop() -> str:
    days = [START + timedelta(days=at) for at in range(140)]
    return _table("day,revenue", [f"{day:%Y-%m-%d}" for day in days if day.weekday() < 6])  # noqa: PLR2004 - Sunday


def _months() -> str:
    return _table("Month,Passengers", [f"{1949 + at // 12}-{at % 12 + 1:02d}" for at in range(132)])


def _autumn() -> str:
    start = datetime(2024, 10, 20)  # noqa: DTZ001 - local times
    times = _times(timedelta(hours=1), 240, start=start)
    at = times.index("2024-10-27 03:00")
    return _table("time,load", [*times[:at], times[at - 1], *times[at:-1]])


def _finer() -> str:
    quarters = _times(timedelta(minutes=15), 480, start=START + timedelta(hours=240))
    return _table("time,load", [*_times(timedelta(hours=1), 240), *quarters])


def _two_shops() -> str:
    days = _times(timedelta(days=1), 100, "%Y-%m-%d")
    rows = [f"{day},{shop},{value + 500 * (shop == 'south')}" for day, value in zip(days, _values(100), strict=True)
            for shop in ("north", "south")]  # fmt: skip
    return "\n".join(["date,shop,revenue", *rows, ""])


def _broken() -> str:
    lines = _table("time,load,load,note", _times(timedelta(hours=1), 100)).splitlines()
    rows = [f"{line},{at}.5,x" for at, line in enumerate(lines[1:])]
    rows[4] = rows[4].replace("2024-01-01 04:00", "2024-01-41 04:00")
    return "\n".join([lines[0], *rows, ""])


def _blank_end() -> str:
    lines = _table("time,load", _times(timedelta(hours=1), 130)).splitlines()
    lines[40] = lines[40].split(",")[0] + ",-999"
    lines[60] = lines[60].split(",")[0] + ",-999"
    del lines[80]
    return "\n".join([*lines[:101], *(line.split(",")[0] + "," for line in lines[101:125]), ""])


def _promotions() -> str:
    count = 800
    rng = np.random.default_rng(7)
    days, noise = np.arange(count), rng.normal(0, 2, count)
    promotion = rng.random(count) < 0.2  # noqa: PLR2004 - share of the days
    weather = 10 - 8 * np.cos(2 * np.pi * days / 365.25) + rng.normal(0, 2, count)
    sales = 100 + 10 * np.sin(2 * np.pi * days / 7) + 25 * promotion + noise
    times = _times(timedelta(days=1), count, "%Y-%m-%d")
    rows = zip(times, sales.tolist(), promotion.tolist(), weather.tolist(), strict=True)
    return "\n".join(
        ["day,sales,promotion,weather", *(f"{day},{sold:.2f},{on:d},{warm:.1f}" for day, sold, on, warm in rows), ""]
    )


KNOWN_AHEAD = ("FUTURE_COLUMNS=promotion", "PAST_COLUMNS=weather", "HOLIDAYS=DE")
EXAMPLES = {
    "meter": Example("meter.csv", _meter, encoding="windows-1252"),
    "order of day and month": Example("sales.csv", _day_or_month),
    "months": Example("passengers.csv", _months),
    "shop": Example("shop.csv", _shop),
    "autumn": Example("local.csv", _autumn, ((), ("TIME_ZONE=Europe/Berlin",)), "1p;171,174p"),
    "change of step": Example("finer.csv", _finer, ((), ("STEP=1 h",)), "1p;240,244p"),
    "rows": Example("logger.csv", _blank_end, shown="1p;40,42p;80,82p;101,103p"),
    "long table": Example("shops.csv", _two_shops, ((), ("SERIES_COLUMN=shop",))),
    "columns that are known ahead": Example("kiosk.csv", _promotions, (KNOWN_AHEAD,)),
    "problems": Example("broken.csv", _broken, shown="1p;5,7p"),
    "other data": Example(
        "shop.csv", _shop, shown="1,3p", after=lambda: _table("day,visitors", _times(timedelta(days=1), 400))
    ),
}
