"""Files with hourly rows in different encodings, separators, numbers and surroundings, and in other formats."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import numpy as np

from flts.forecasting.series import FloatArray
from tests.case_files.case import Case, Read, Refused, cells, csv_of, hours, number, seconds, texts, wave
from tests.file_formats import excel_of, parquet_of

ROWS = 400
HOURS = hours(ROWS)
TIMES = texts(HOURS)
FLOW = wave(ROWS)
TEMP = wave(ROWS, level=11, spread=4, seed=2, decimals=1)
BOTH = {"flow": cells(FLOW), "temp": cells(TEMP, 1)}
COMMA = {"flow": cells(FLOW, decimal=","), "temp": cells(TEMP, 1, decimal=",")}
THOUSANDS = wave(ROWS, level=4200, spread=900, seed=3)


def dialect_cases() -> Iterator[Case]:
    """Yield files in all dialects and formats."""
    yield from _separators()
    yield from _encodings()
    yield from _surroundings()
    yield from _numbers()
    yield from _columns()
    yield from _formats()


def _read(*words: str, flow: FloatArray = FLOW, temp: FloatArray | None = TEMP, step: str = "1 h") -> Read:
    values = {"flow": flow} if temp is None else {"flow": flow, "temp": temp}
    return Read(step, seconds(HOURS), values, words=words)


def _one(name: str, column: list[str], values: FloatArray, *words: str, separator: str = ",", **settings: str) -> Case:
    text = csv_of(TIMES, {"flow": column}, separator=separator)
    return Case(name, text.encode(), _read(*words, flow=values, temp=None), settings=settings)


def _separators() -> Iterator[Case]:
    yield Case("semicolons", csv_of(TIMES, BOTH, separator=";").encode(), _read("separator: semicolon"))
    yield Case("tabs-and-crlf", csv_of(TIMES, BOTH, separator="\t", end="\r\n").encode(), _read("separator: tab"))
    yield Case("vertical-bars", csv_of(TIMES, BOTH, separator="|").encode(), _read("separator: vertical bar"))
    spaced = csv_of(texts(HOURS, "%Y-%m-%dT%H:%M"), BOTH, separator="   ").encode()
    yield Case("columns-of-spaces", spaced, _read("separator: spaces"))
    text = csv_of(TIMES, COMMA, separator=";").encode()
    yield Case("decimal-comma", text, _read("decimal mark: comma (DECIMAL)"))
    quoted = {name: [f'"{cell}"' for cell in column] for name, column in COMMA.items()}
    yield Case("decimal-comma-quoted", csv_of(TIMES, quoted).encode(), _read("decimal mark: comma (DECIMAL)"))


def _encodings() -> Iterator[Case]:
    text = csv_of(TIMES, COMMA, separator=";", end="\r\n")
    yield Case("utf-8-with-mark", text.encode("utf-8-sig"), _read("separator: semicolon"))
    tabs = csv_of(TIMES, BOTH, separator="\t", end="\r\n")
    yield Case("unicode-text-of-excel", tabs.encode("utf-16"), _read("encoding: utf-16-le (ENCODING)"))
    yield Case("utf-16-big-endian", tabs.encode("utf-16-be"), _read("encoding: utf-16-be (ENCODING)"))
    latin = csv_of(TIMES, {"Außenfühler °C": cells(TEMP, 1)}, time="Zeit").encode("windows-1252")
    right = Read("1 h", seconds(HOURS), {"Außenfühler °C": TEMP}, words=("encoding: windows-1252 (ENCODING)",))
    yield Case("windows-1252", latin, right)


def _surroundings() -> Iterator[Case]:
    above = "Logger;No 7\nFrom;02.06.2023\n\n"
    text = csv_of(TIMES, BOTH, separator=";", above=above).encode()
    yield Case("lines-above", text, _read("3 line(s) above the header", "SKIP_ROWS"))
    text = csv_of(TIMES, BOTH, separator=";", above="sep=;\n").encode()
    yield Case("separator-named-above", text, _read("1 line(s) above the header"))
    text = csv_of(TIMES, BOTH, time="").encode()
    right = Read("1 h", seconds(HOURS), {"column_2": FLOW, "column_3": TEMP}, words=("the file has no header",))
    yield Case("no-header", text, right)
    text = csv_of(TIMES, BOTH, above="# flow of the main pipe\n# l/s\n").encode()
    yield Case("remarks-above", text, _read("2 line(s) above the header"))
    text = csv_of(TIMES, BOTH, below=",l/s,degC").encode()
    yield Case("units-below", text, _read("1 line(s) below the header"))
    text = csv_of(TIMES, BOTH, tail="\n400 records written\n").encode()
    yield Case("remark-at-the-end", text, _read("left out at the end", "400 records written"))
    text = csv_of(TIMES, BOTH, tail=f"Total,{FLOW.sum():.2f},\n").encode()
    yield Case("total-at-the-end", text, _read("left out at the end", "Total"))
    text = "".join(f"{line},\n" for line in csv_of(TIMES, BOTH).splitlines()).encode()
    yield Case("separator-at-the-end", text, _read())
    lines = csv_of(TIMES, BOTH).splitlines()
    numbered = [f",{lines[0]}", *(f"{at},{line}" for at, line in enumerate(lines[1:]))]
    yield Case("row-numbers", "\n".join([*numbered, ""]).encode(), _read("counts the rows"))


def _numbers() -> Iterator[Case]:
    quoted = [f'"{cell}"' for cell in cells(THOUSANDS, thousands=",")]
    yield _one("thousands-quoted", quoted, THOUSANDS, "thousands mark: , (THOUSANDS)")
    dotted = cells(THOUSANDS, decimal=",", thousands=".")
    yield _one("thousands-dots-decimal-comma", dotted, THOUSANDS, "decimal mark: comma", "(THOUSANDS)", separator=";")
    spaced = cells(THOUSANDS, decimal=",", thousands="\u202f")
    yield _one("thousands-spaces", spaced, THOUSANDS, "thousands mark: space (THOUSANDS)", separator=";")
    whole = np.round(wave(ROWS, level=1500, spread=1200, seed=4))
    counted = [number(0, thousands=".")(value) for value in whole.tolist()]
    yield _one("dots-for-thousands", counted, whole, "thousands mark: . (THOUSANDS)", separator=";")
    above = np.round(wave(ROWS, level=4500, spread=1200, seed=4))
    counted = [number(0, thousands=".")(value) for value in above.tolist()]
    text = csv_of(TIMES, {"flow": counted}, separator=";").encode()
    words = (counted[0], counted[0].replace(".", ""), "DECIMAL=.", "THOUSANDS=.")
    yield Case("dots-for-all-thousands", text, Refused("two_readings", "train", words))
    yield _one("dots-given", counted, above, separator=";", THOUSANDS=".")
    marks = {7: "-", 31: "?", 64: "#N/A", 99: "unavailable", 130: ".", 222: "n/a"}
    column, values = cells(FLOW), FLOW.copy()
    for row, mark in marks.items():
        column[row], values[row] = mark, np.nan
    yield _one("missing-marks", column, values, "missing cells: 6 (MISSING)")
    own = [cell if row % 50 else "defekt" for row, cell in enumerate(cells(FLOW))]
    values = np.where(np.arange(ROWS) % 50, FLOW, np.nan)
    yield _one("missing-mark-given", own, values, "missing cells: 8 (MISSING)", MISSING="defekt")
    counter = 2**53 + 1 + 30_000 * np.arange(ROWS) + np.round(wave(ROWS, level=0, spread=900)).astype(np.int64)
    yield _one("counter-above-2-53", [str(cell) for cell in counter], counter.astype(float), "last digits: flow")


def _columns() -> Iterator[Case]:
    on = [str(at % 5 < 2) for at in range(ROWS)]
    sky = ["rain" if at % 7 < 3 else "clear" for at in range(ROWS)]
    text = csv_of(TIMES, {"flow": cells(FLOW), "pump": on, "sky": sky}).encode()
    values = {"flow": FLOW, "pump": np.array([float(cell == "True") for cell in on])}
    words = ("true is read as 1", "most of their cells are text: sky")
    yield Case("booleans-and-text", text, Read("1 h", seconds(HOURS), values, words=words))
    times = [*TIMES[:20], "gestern", *TIMES[21:]]
    column = ["a lot" if at == 30 else cell for at, cell in enumerate(BOTH["flow"])]
    text = csv_of(times, {"flow": column, "temp": BOTH["temp"]}).encode()
    words = ("2 problems", "row 21, column time: 'gestern'", "row 31, column flow: 'a lot'")
    yield Case("two-problems", text, Refused("not_a_number", "flow", words))
    text = csv_of(TIMES, {"sky": sky}).encode()
    yield Case("text-only", text, Refused("not_a_number", "sky", ("no other column has numbers",)))


def _formats() -> Iterator[Case]:
    text = csv_of(TIMES, BOTH).encode()
    yield Case("gzip", gzip.compress(text, mtime=0), _read("format: gzip"))
    table = parquet_of(taken=HOURS, flow=FLOW.tolist(), temp=TEMP.tolist())
    yield Case("parquet", table, _read("format: Parquet", "column taken"))
    rows: list[list[object]] = [
        ["taken", "flow", "temp"],
        *(list(row) for row in zip(HOURS, FLOW.tolist(), TEMP.tolist(), strict=True)),
    ]
    words = ("format: Excel", "sheet: Sheet2 of 2", "1 line(s) above the header")
    yield Case("workbook", excel_of([["a remark"]], [["Logger", 7], *rows]), _read(*words))
