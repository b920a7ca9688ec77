"""Files as programs write them: each is read without a setting, and the guesses are named."""

from __future__ import annotations

import calendar
import csv
import gzip
import io
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from time import process_time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flts.errors import RejectedError
from flts.ingest.dialect import SEPARATORS, Dialect
from flts.ingest.reader import read_table
from flts.ingest.table import RawTable
from flts.recipe_settings import ReadSettings
from flts.settings import UploadLimits

ROWS = 60
START = datetime(2024, 3, 1)  # noqa: DTZ001 - times without a zone
VALUES = np.round(np.random.default_rng(5).uniform(1, 99, (ROWS, 2)), 2)
TIMES = [START + timedelta(hours=row) for row in range(ROWS)]
SECONDS = [1_709_251_200 + 3600 * row for row in range(ROWS)]


def read(data: bytes, **overrides: object) -> RawTable:
    return read_table(io.BytesIO(data), limits=UploadLimits(), settings=ReadSettings(**overrides))


def written(
    *,
    separator: str = ",",
    head: str = "time{0}load{0}temp",
    number: Callable[[float], str] = "{:.2f}".format,
    line: str = "{time}{0}{a}{0}{b}",
    above: str = "",
    below: str = "",
    tail: str = "",
    end: str = "\n",
) -> str:
    """Return the text of the table; ``{0}`` is the separator."""
    lines = [head.format(separator)] if head else []
    for row, (time, (a, b)) in enumerate(zip(TIMES, VALUES, strict=True)):
        cells = {"time": time, "date": f"{time:%d/%m/%Y}", "clock": f"{time:%H:%M}", "a": number(a), "b": number(b)}
        lines.append(line.format(separator, row=row, truth=row % 3 == 0, **cells))
    if below:
        lines.insert(1, below.format(separator))
    return above + end.join(lines) + end + tail


def comma(number: float) -> str:
    return f"{number:.2f}".replace(".", ",")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (written(), None),
        (written(end="\r\n"), None),
        (written(separator=";"), "separator: semicolon"),
        (written(separator="\t"), "separator: tab"),
        (written(separator="|"), "separator: vertical bar"),
        (written(separator="  ", head="date clock load temp"), "separator: spaces"),
        (written(separator=";", number=comma), "decimal mark: comma (DECIMAL)"),
        (written(separator="\t", number=comma), "decimal mark: comma (DECIMAL)"),
        (written(line='{time}{0}"{a}"{0}"{b}"', number=comma), "decimal mark: comma (DECIMAL)"),
        (written(head="ds{0}load{0}temp"), None),
        (written(head="Date/Time{0}load{0}temp"), None),
        (written(head="stamp{0}load{0}temp"), None),
        (written(head="load{0}temp{0}taken", line="{a}{0}{b}{0}{time}"), None),
        (written(head="Date{0}Time{0}load{0}temp", line="{date}{0}{clock}{0}{a}{0}{b}"), None),
        (written(above="Device,Meter 12\nExported,01.04.2024\n\n"), "3 line(s) above the header"),
        (written(above="# exported by a meter\n#\n"), "2 line(s) above the header"),
        (written(separator=";", above="Device;Meter 12;\nDate;01.04.2024;\n"), "2 line(s) above the header"),
        (written(below="{0}kW{0}degC"), "1 line(s) below the header"),
        (written(below="-{0}[kW]{0}[°C]"), "1 line(s) below the header"),
        (written(head="time{0}load{0}temp{0}", line="{time}{0}{a}{0}{b}{0}"), None),
        (written(line="{time}{0}{a}{0}{b}{0}"), None),
        (written(head="{0}time{0}load{0}temp", line="{row}{0}{time}{0}{a}{0}{b}"), "counts the rows"),
        (written(head="Unnamed: 0{0}time{0}load{0}temp", line="{row}{0}{time}{0}{a}{0}{b}"), "counts the rows"),
        (written(tail="\n60 rows exported\n"), "60 rows exported"),
        (written(tail="Total,1234.5,99\n"), "Total,1234.5,99"),
        (written(tail="Summe:,1234.5,\n\n"), "Summe:"),
        (written(tail=",,\n,,\n"), None),
        (written(tail="2024-03-03 12:00:00,4"), "2024-03-03 12:00:00,4"),
        (
            written(head="time{0}load{0}temp{0}sky", line="{time}{0}{a}{0}{b}{0}rain"),
            "most of their cells are text: sky",
        ),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "windows-1252"])
def test_a_table_is_read_from_any_dialect(data: str, said: str | None, encoding: str) -> None:
    table = read(data.encode(encoding))

    assert table.times.tolist() == SECONDS
    assert table.columns == ("load", "temp")
    assert (table.values == VALUES).all()
    assert said is None or any(said in note for note in table.notes)


@pytest.mark.parametrize(
    ("cells", "separator", "numbers"),
    [
        (["3.482", "950", "12.001"], ";", [3482, 950, 12001]),
        (["3.482", "950", "12.01"], ";", [3.482, 950, 12.01]),
        (["0.482", "950", "12.001"], ";", [0.482, 950, 12.001]),
        (["3.482", "9500", "12.001"], "\t", [3.482, 9500, 12.001]),
        (["1.234.567", "950", "12.001"], ";", [1_234_567, 950, 12001]),
        (["1.234,5", "950", "12.001"], ";", [1234.5, 950, 12001]),
        (['"4,820.76"', '"1,001"', "7"], ",", [4820.76, 1001, 7]),
        (['"4,820"', '"950"', '"12,001"'], ",", [4820, 950, 12001]),
        (["1 234,5", "950", "12 001"], ";", [1234.5, 950, 12001]),
        (["1'234.5", "950", "12'001"], ",", [1234.5, 950, 12001]),
        (["3.482", "9.125", "7.250"], ",", [3.482, 9.125, 7.25]),
        (["True", "no", "yes"], ",", [1, 0, 1]),
        (["true", "1", "?"], ",", [1, 1, np.nan]),
        (["-", "#N/A", "unavailable"], ",", [np.nan] * 3),
    ],
)
def test_marks_of_numbers_are_found(cells: list[str], separator: str, numbers: list[float]) -> None:
    text = f"time{separator}a\n" + "".join(f"2024-01-0{at}{separator}{cell}\n" for at, cell in enumerate(cells, 1))

    np.testing.assert_array_equal(read(text.encode()).values[:, 0], numbers)


@pytest.mark.parametrize(
    ("cells", "separator"), [(["3.482", "9.125"], ";"), (["3.482", "950"], ","), (["3,482", "9,125"], ";")]
)
def test_two_readings_are_refused_with_both_and_the_settings(cells: list[str], separator: str) -> None:
    text = f"time{separator}a\n" + "".join(f"2024-01-0{at}{separator}{cell}\n" for at, cell in enumerate(cells, 1))
    mark = cells[0][1]

    with pytest.raises(RejectedError, match=rf"3.482 or 3482: .*DECIMAL=\{mark} .*THOUSANDS=\{mark}") as refusal:
        read(text.encode())
    assert refusal.value.code == "two_readings"
    assert read(text.encode(), decimal=mark).values[0, 0] == 3.482
    assert read(text.encode(), thousands=mark).values[0, 0] == 3482


def test_all_problems_are_reported_at_once() -> None:
    text = "time,a,a,b,c_upper\n2024-01-01,1,1,1,1\n2024-01-02,2,2,x,1\nsoon,3,3,inf,1\n2024-01-04,4,4,4,1\n"

    with pytest.raises(RejectedError) as refusal:
        read(text.encode())

    assert (refusal.value.code, refusal.value.field) == ("duplicate_column", "a")
    for words in ("4 problems", "2 columns are called a", "c_upper", "row 2, column b: 'x'", "row 3, column time"):
        assert words in refusal.value.message


@pytest.mark.parametrize(
    ("text", "overrides", "columns"),
    [
        ("a,b,v\n2024-01-01,2024-02-01,1\n2024-01-02,2024-02-02,2\n", {"time_column": "b"}, ("v",)),
        ("d,h,v\n2024-01-01,00:00,1\n2024-01-01,01:00,2\n", {"time_column": "d,h"}, ("v",)),
        ("x\ntime,v\n2024-01-01,1\n", {"skip_rows": 1}, ("v",)),
        ("time,v\n2024-01-01,n.b.\n2024-01-02,2\n", {"missing": "n.b."}, ("v",)),
        ("time,größe\n2024-01-01,1\n", {"encoding": "utf-8"}, ("größe",)),
        ("time,größe\n2024-01-01,1\n", {"encoding": "windows-1252"}, ("grÃ¶ÃŸe",)),
        ("id,time,v\nn,2024-01-01,1\ns,2024-01-01,2\n", {"series_column": "id"}, ("n", "s")),
        ("unique_id,time,v,w\nn,2024-01-01,1,2\ns,2024-01-02,2,3\n", {}, ("n v", "n w", "s v", "s w")),
    ],
)
def test_settings_override_the_guesses(text: str, overrides: dict[str, object], columns: tuple[str, ...]) -> None:
    assert read(text.encode(), **overrides).columns == columns


def test_two_equally_good_time_columns_are_refused_and_a_better_one_is_used() -> None:
    with pytest.raises(RejectedError, match="TIME_COLUMN=opened or TIME_COLUMN=closed"):
        read(b"opened,closed,v\n2024-01-01,2024-01-02,1\n2024-01-02,2024-01-03,2\n")

    table = read(b"valid until,time,v\n2024-01-01,2024-01-02,1\n2024-01-02,2024-01-03,2\n")
    assert table.time_column == "time"
    assert any("valid until (TIME_COLUMN)" in note for note in table.notes)


def test_a_long_file_is_refused_with_the_setting_that_spreads_it() -> None:
    with pytest.raises(RejectedError, match=r"2 series in column site.*SERIES_COLUMN=site"):
        read(b"site,time,v\nn,2024-01-01,1\nn,2024-01-02,2\ns,2024-01-01,3\ns,2024-01-02,4\n")


@pytest.mark.parametrize("encoding", ["utf-8", "windows-1252"])
def test_a_later_byte_outside_of_ascii_decides_about_the_encoding(encoding: str) -> None:
    rows = 60_000
    text = "time,v,note\n" + "".join(f"{1_700_000_000 + 60 * at},{at},x\n" for at in range(rows))

    table = read(text.encode() + f"{1_700_000_000 + 60 * rows},1,größer\n".encode(encoding))

    assert table.rows == rows + 1
    assert table.dialect is not None
    assert table.dialect.encoding == encoding


def test_a_cell_of_many_digits_that_is_no_number_is_refused_at_once() -> None:
    started = process_time()

    with pytest.raises(RejectedError):
        read(b"time,v\n2024-01-01," + b"9" * 250_000 + b"x\n2024-01-02,1\n")

    assert process_time() - started < 5


def test_one_mark_for_decimals_and_thousands_is_refused() -> None:
    with pytest.raises(RejectedError, match="DECIMAL and THOUSANDS are both") as refusal:
        read(b"time,v\n2024-01-01,1.5\n", decimal=".", thousands=".")
    assert (refusal.value.code, refusal.value.field) == ("bad_setting", "THOUSANDS")


def test_an_encoding_that_needs_a_byte_order_mark_is_refused_without_one() -> None:
    with pytest.raises(RejectedError, match="not text in utf-16; ENCODING") as refusal:
        read(b"time,v\n2024-01-01,1\n", encoding="utf-16")
    assert refusal.value.code == "wrong_encoding"


def test_a_dialect_is_read_back_from_its_json() -> None:
    dialect = Dialect(encoding="utf-16-le", separator="\t", decimal=",", thousands=".", missing=("x",), units_rows=1)

    assert Dialect.from_dict(dialect.as_dict()) == dialect
    with pytest.raises(ValueError, match="not a dialect"):
        Dialect(separator="x")
    with pytest.raises(ValueError, match="thousands"):
        Dialect(decimal=",", thousands=",")


FORMS: dict[str, Callable[[datetime], str]] = {
    "iso": str,
    "iso with Z": "{:%Y-%m-%dT%H:%M:%SZ}".format,
    "day first": "{:%d.%m.%Y %H:%M}".format,
    "month first": "{:%m/%d/%Y %I:%M %p}".format,
    "month name": "{:%d-%b-%Y %H:%M:%S}".format,
    "compact": "{:%Y%m%d%H%M}".format,
    "seconds": lambda when: str(calendar.timegm(when.timetuple())),
    "milliseconds": lambda when: f"{calendar.timegm(when.timetuple())}000",
    "microseconds": lambda when: f"{calendar.timegm(when.timetuple())}000000",
}
"""How a file may write its times, on the 17th of a month, so that no cell has two readings."""
ABOVE = {"nothing": "", "names": "Logger{0}7\nFrom{0}17.03.2024\n\n", "remarks": "# flow\n#\n", "sep": "sep={0}\n"}
TAILS = {"nothing": "", "remark": "\nend of the export\n", "total": "Total{0}1{0}2\n", "blank": "{0}{0}\n\n"}
THOUSANDS = {"none": "", "space": " ", "narrow space": "\u202f", "apostrophe": "'", "other": "other"}


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(
        st.tuples(*[st.one_of(st.none(), st.floats(-1e6, 1e6).map(lambda number: round(number, 4)))] * 2),
        min_size=4,
        max_size=40,
    ),
    form=st.sampled_from(list(FORMS)),
    separator=st.sampled_from(SEPARATORS[:4]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "windows-1252"]),
    missing=st.sampled_from(["", "NA", "-", "?", "n/a"]),
    decimal=st.sampled_from([".", ","]),
    thousands=st.sampled_from(list(THOUSANDS)),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    above=st.sampled_from(list(ABOVE)),
    tail=st.sampled_from(list(TAILS)),
    packed=st.booleans(),
    order=st.randoms(use_true_random=False),
    is_ordered=st.booleans(),
)
def test_any_table_written_in_any_dialect_is_read_back(  # noqa: PLR0917 - hypothesis names them
    values: list[tuple[float | None, ...]],
    form: str,
    separator: str,
    encoding: str,
    missing: str,
    decimal: str,
    thousands: str,
    end: str,
    quoting: int,
    above: str,
    tail: str,
    packed: bool,
    order: random.Random,
    is_ordered: bool,
) -> None:
    group = {"other": "," if decimal == "." else "."}.get(thousands, THOUSANDS[thousands])
    if encoding == "windows-1252":
        group = group.replace("\u202f", "\u00a0")
    times = [datetime(2024, 3, 17) + timedelta(hours=at) for at in range(len(values))]  # noqa: DTZ001 - no zone
    rows = list(zip(times, values, strict=True))
    if not is_ordered:
        order.shuffle(rows)
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writerow(["time", "größe", "b"])
    for when, row in rows:
        cells = [missing if cell is None else _number(cell, decimal, group) for cell in row]
        writer.writerow([FORMS[form](when), *cells])
    text = "".join([ABOVE[above].format(separator), out.getvalue(), TAILS[tail].format(separator)])
    data = text.encode(encoding)

    table = read(gzip.compress(data, mtime=0) if packed else data)

    expected = np.array([[np.nan if cell is None else cell for cell in row] for row in values])
    assert table.columns == ("größe", "b")
    assert table.times.tolist() == [calendar.timegm(when.timetuple()) for when in times]
    np.testing.assert_array_equal(table.values, expected)
    again = table.dialect
    assert again is not None
    assert Dialect.from_dict(again.as_dict()) == again


def _number(value: float, decimal: str, group: str) -> str:
    return f"{value:,.4f}".translate({ord(","): group, ord("."): decimal})


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "time",
                "2024-01-01",
                "2024-01-02",
                ",",
                ";",
                "\t",
                "|",
                " ",
                "\n",
                "\r",
                '"',
                "1.5",
                "1,5",
                "x",
                "\0",
                "é",
            ]
        ),
        max_size=40,
    ).map("".join),
    st.sampled_from(["utf-8", "utf-16", "latin-1"]),
)
def test_any_arrangement_of_cells_is_read_or_refused_with_a_reason(text: str, encoding: str) -> None:
    try:
        table = read(text.encode(encoding))
    except RejectedError as refusal:
        is_right = refusal.code != "rejected" and refusal.field is not None
    else:
        is_right = table.values.shape == (table.rows, len(table.columns)) and (np.diff(table.times) > 0).all()
    assert is_right
