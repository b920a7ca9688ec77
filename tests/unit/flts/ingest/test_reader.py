from __future__ import annotations

import gzip
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flts.errors import RejectedError
from flts.ingest.lines import BLOCK_BYTES
from flts.ingest.reader import read_table
from flts.ingest.table import RawTable
from flts.recipe_settings import ReadSettings
from flts.settings import UploadLimits
from flts.times import TimeFormat

HEAD = "time,a,b\n"


def read(
    text: str | bytes,
    *,
    name: str = "file",
    limits: UploadLimits | None = None,
    like: TimeFormat | None = None,
    **settings: Any,
) -> RawTable:
    data = io.BytesIO(text.encode() if isinstance(text, str) else text)
    return read_table(data, limits=limits or UploadLimits(), settings=ReadSettings(**settings), like=like, name=name)


def read_epoch(text: str | bytes, **others: Any) -> RawTable:
    """Read a file whose times are small numbers of seconds, which need the setting."""
    return read(text, time_format="epoch", **others)


@pytest.mark.parametrize(
    ("text", "code", "field", "words"),
    [
        ("", "empty_file", "file", "empty"),
        ("\n\r\n\n", "empty_file", "file", "no header"),
        (HEAD, "no_rows", "file", "header and no rows"),
        ("time,a,b", "no_rows", "file", "header and no rows"),
        ("x,a\n1,2\n", "no_time_column", "file", "names x, a"),
        ("1,2\n3,4\n", "no_time_column", "file", "TIME_COLUMN"),
        ("time,ts,a\n1,2,3\n", "two_time_columns", "ts", "time and ts"),
        ("Date,Timestamp,a\n1,2,3\n", "two_time_columns", "Timestamp", "TIME_COLUMN=Date or TIME_COLUMN=Timestamp"),
        ("time\n1\n", "no_numeric_column", "file", "beside time"),
        ("time,a,a\n1,2,3\n", "duplicate_column", "a", "2 columns are called a"),
        ("time,a\u202eb\n1,2\n", "bad_column_name", "file", "not printable"),
        (f"time,{'a' * 201}\n1,2\n", "bad_column_name", "file", "longer than 200"),
        ('time,"a\n1,2\n', "no_time_column", "file", "TIME_COLUMN"),
        ("time,a_lower\n1,2\n", "reserved_name", "a_lower", "reserved"),
        ("time,a_upper\n1,2\n", "reserved_name", "a_upper", "reserved"),
        ("time,min_of_day_sin\n1,2\n", "reserved_name", "min_of_day_sin", "time features"),
        ("time,a,a_lag_2\n1,2,3\n", "reserved_name", "a_lag_2", "lags"),
        (HEAD + "1,2,3\n2,x,4\n", "not_a_number", "a", "row 2, column a: 'x'"),
        (HEAD + "1,0x10,3\n2,4,5\n", "not_a_number", "a", "0x10"),
        ("time,a,b\n1,x,y\n2,z,y\n", "not_a_number", "a", "2 problems: (1) column a: 'x'"),
        (HEAD + '1,"1,5",3\n2,1.5,3\n3,2.5,3\n', "decimal_comma", "a", "DECIMAL"),
        (HEAD + "1,2,3\n2,3,inf\n", "infinite_value", "b", "row 2, column b"),
        (HEAD + "1,-Infinity,3\n", "infinite_value", "a", "row 1, column a"),
        (HEAD + "1,2,1e999\n", "infinite_value", "b", "too large for a float64"),
        (HEAD + "1,2,3\n2,3\n3,4,5\n", "ragged_row", "file", "row 2 has 2 cells, the header 3"),
        (HEAD + "1,2,3\n2,3,4,5\n3,4,5\n", "ragged_row", "file", "row 2 has 4 cells"),
        ("time,a\n1,2,3\n2,3,4\n", "ragged_row", "file", "the header has 2 cells, most rows have 3"),
        (HEAD + f"1,{'z' * 101},3\n2,4,5\n", "cell_too_long", "a", "longer than 100"),
        (HEAD + f"{'1' * 101},2,3\n", "cell_too_long", "time", "longer than 100"),
        ('time,note,a\n1,"x,3\n2,y",4\n', "broken_quotes", "file", "line break"),
        ('time,a\n1,"2\n3,4\n', "broken_quotes", "file", "unbalanced"),
        (HEAD + "1,2,3\n,2,3\n", "missing_time", "time", "row 2 has no time"),
        (HEAD + "1,2,3\n2,2,3\n", "ambiguous_time", "time", "row 1, column time: '1' is a number that may be"),
        (HEAD + "-99999999999,2,3\n", "ambiguous_time", "time", "set TIME_FORMAT to epoch"),
        (HEAD + "1.5,2,3\n", "ambiguous_time", "time", "epoch ms, epoch us, excel, year"),
        (
            HEAD + "01/02/2024,2,3\n",
            "ambiguous_time",
            "time",
            "'01/02/2024' may be 1 February or 2 January 2024: set TIME_FORMAT=DD/MM/YYYY or TIME_FORMAT=MM/DD/YYYY",
        ),
        (HEAD + "2024-02-30,2,3\n", "bad_time", "time", "no such day"),
        (HEAD + "soon,2,3\n", "bad_time", "time", "'soon' is not a time in a known form"),
        (
            HEAD + "2024-01-01,2,3\nsoon,2,3\n",
            "bad_time",
            "time",
            "row 2, column time: 'soon' is not a time of the form",
        ),
        (
            HEAD + "2024-01-01T00:00:00.25,2,3\n2024-01-01T00:00:00.45,2,3\n",
            "finer_than_seconds",
            "time",
            "row 2, column time: less than a second after the row before",
        ),
        (HEAD.encode() + b"1,2,\0\n", "not_text", "file", "NUL"),
        (gzip.compress(b"time,a\n1,2\n", mtime=0)[:-9], "unreadable", "file", "gzip"),
        (gzip.compress(b"PAR1", mtime=0), "not_csv", "file", "gzip"),
        (b"PAR1\0\0", "unreadable", "file", "Parquet"),
        (b"PK\x03\x04\0", "unreadable", "file", "Excel"),
        ("time,a\n1," + "9" * (2 * BLOCK_BYTES), "line_too_long", "file", "one row a line"),
        ("time," + ",".join(f"c{at}" for at in range(200_000)) + "\n1", "too_many_columns", "file", "200,000 cells"),
        ("time," + ",".join(f"c{at}" for at in range(1_000)) + "\n1", "too_many_columns", "file", "1,000"),
        ("time,a\n1," + '"' * 400_001 + "\n", "cell_too_long", "a", "row 1"),
    ],
)
def test_refuses_by_code_field_and_message(text: str | bytes, code: str, field: str, words: str) -> None:
    with pytest.raises(RejectedError) as refusal:
        read(text)

    assert (refusal.value.code, refusal.value.field) == (code, field)
    assert words in refusal.value.message
    assert len(refusal.value.message) < 400


def test_a_byte_of_another_encoding_is_refused_with_the_setting() -> None:
    text = "time,é\n".encode() + b"1,2\n" * BLOCK_BYTES + b"2,\xe9\n"

    with pytest.raises(RejectedError, match="byte 0xe9 is not valid in utf-8; ENCODING") as refusal:
        read_epoch(text)
    assert refusal.value.code == "wrong_encoding"


def test_calls_the_whole_file_what_the_caller_calls_it() -> None:
    with pytest.raises(RejectedError) as refusal:
        read("", name="test")

    assert refusal.value.field == "test"


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (UploadLimits(max_upload_rows=2), "too_many_rows"),
        (UploadLimits(max_upload_cells=8), "too_many_cells"),
        (UploadLimits(max_upload_columns=2), "too_many_columns"),
        (UploadLimits(max_upload_bytes=20), "too_large"),
    ],
)
def test_limits_are_refused_by_their_setting(limits: UploadLimits, code: str) -> None:
    text = HEAD + "1,2,3\n2,3,4\n3,4,5\n"

    with pytest.raises(RejectedError) as refusal:
        read_epoch(text, limits=limits)

    assert refusal.value.code == code
    assert "MAX_UPLOAD_" in refusal.value.message
    assert read_epoch(text).rows == 3


class Endless(io.RawIOBase):
    """A body that begins with valid rows and never ends; it counts the bytes that were read."""

    def __init__(self, start: bytes, line: bytes) -> None:
        super().__init__()
        self.start, self.line, self.taken = start, line, 0

    def read(self, size: int = -1) -> bytes:
        data = (self.start + self.line * (size // len(self.line) + 1))[:size]
        self.start = b""
        self.taken += len(data)
        return data


@pytest.mark.parametrize(
    ("line", "code"), [(b"1,2\n", "too_large"), (b"9", "line_too_long"), (b'"', "line_too_long"), (b"\n", "too_large")]
)
def test_an_endless_body_is_given_up_after_a_few_blocks(line: bytes, code: str) -> None:
    body = Endless(b"time,a\n", line)

    with pytest.raises(RejectedError) as refusal:
        read_table(
            body,  # type: ignore[arg-type] - a fake stream
            limits=UploadLimits(max_upload_bytes=4 * BLOCK_BYTES),
            settings=ReadSettings(time_format="epoch"),
        )

    assert refusal.value.code == code
    assert body.taken <= 5 * BLOCK_BYTES


@pytest.mark.parametrize(
    ("text", "times", "values"),
    [
        ("time,a\n1,2\n3,4\n", [1, 3], [[2], [4]]),
        ("time,a\r\n1,2\r\n3,4", [1, 3], [[2], [4]]),
        ("time,a\r1,2\r3,4", [1, 3], [[2], [4]]),
        ("\ufefftime,a\n1,2\n", [1], [[2]]),
        ("time;a\n2024-01-01;1.5\n", [1_704_067_200], [[1.5]]),
        ("time\ta\n1\t2\n", [1], [[2]]),
        ('"time","a"\n"1","2.5"\n', [1], [[2.5]]),
        ("a,TimeStamp\n2,1\n", [1], [[2]]),
        ("ts,a\n1,2\n", [1], [[2]]),
        ("time,a\n1, 2\n2,+3\n3,1e3\n4,.5\n\n5,-5.\n", [1, 2, 3, 4, 5], [[2], [3], [1000], [0.5], [-5]]),
        ("time,a\n2024-01-01T02:00:00+02:00,1\n2024-01-01T00:10:00Z,2\n", [1_704_067_200, 1_704_067_800], [[1], [2]]),
        ("time,a\n2024-01-01 00:00,1\n2024-01-01T00:10Z,2\n", [1_704_067_200, 1_704_067_800], [[1], [2]]),
        ("time,a\n2024-01-01 00:00:00.000,1\n", [1_704_067_200], [[1]]),
        ("time,a\n1704067200.0,1\n", [1_704_067_200], [[1]]),
        ("time,a\n1704067200000,1\n", [1_704_067_200], [[1]]),
        ("time,a\n1704067200500,1\n", [1_704_067_201], [[1]]),
        ("time,a\n20240101,1\n", [1_704_067_200], [[1]]),
        ("time,a\n13/01/2024 00:00,1\n", [1_705_104_000], [[1]]),
        ("time,a\n2024-01-01T00:00:00.25,1\n2024-01-01T00:10:00.75,2\n", [1_704_067_200, 1_704_067_801], [[1], [2]]),
    ],
)
def test_reads_what_people_send(text: str, times: list[int], values: list[list[float]]) -> None:
    table = read_epoch(text) if re.search(r"\d{4}", text) is None else read(text)

    assert table.times.tolist() == times
    assert table.values.tolist() == values


@pytest.mark.parametrize(
    ("text", "settings", "times"),
    [
        ("time,a\n-60,1\n0,2\n", {"time_format": "epoch"}, [-60, 0]),
        ("time,a\n01/02/2024,1\n", {"time_format": "DD/MM/YYYY"}, [1_706_745_600]),
        ("time,a\n01/02/2024,1\n", {"time_format": "%m/%d/%Y"}, [1_704_153_600]),
        ("time,a\n2024-07-01 12:00,1\n", {"time_zone": "Europe/Berlin"}, [1_719_828_000]),
    ],
)
def test_settings_decide_how_times_are_read(text: str, settings: dict[str, str], times: list[int]) -> None:
    assert read(text, **settings).times.tolist() == times


def test_the_form_of_the_other_file_decides_between_two_readings() -> None:
    train = read("time,a\n12/01/2024,1\n13/01/2024,1\n")

    assert read("time,a\n01/02/2024,1\n", like=train.time_format).times.tolist() == [1_706_745_600]


def test_a_table_has_the_form_of_its_times_and_what_was_assumed() -> None:
    table = read("time,a\n2024-01-01T00:00:00.250Z,1\n2024-01-01T00:10:00.750Z,2\n")

    assert table.time_format.pattern == "YYYY-MM-DDTHH:mm:ss.SSSZ"
    assert table.notes == ("column time: 2 times with fractions of a second are rounded to whole seconds",)


@pytest.mark.parametrize("cell", ["", "NA", "N/A", "NaN", "nan", "null", "NULL", '""', " NA"])
def test_missing_cells_are_nan(cell: str) -> None:
    table = read_epoch(f"time,a,b\n1,2,3\n2,{cell},4\n")

    assert np.isnan(table.values[1, 0])
    assert table.values[1, 1] == 4


def test_ignored_columns_may_hold_and_be_called_anything() -> None:
    table = read_epoch("time,note,a,ts,note\n1,hello,2,x,\n2,,3,y,z\n", ignore_columns=("note", "ts", "absent"))

    assert table.columns == ("a",)
    assert table.ignored == ("note", "ts", "note")
    assert table.values.tolist() == [[2], [3]]


def test_the_row_of_an_error_is_counted_over_all_blocks() -> None:
    rows = 3 * BLOCK_BYTES // 20
    lines = [f"{at},{at}.123456789\n" for at in range(rows)]
    lines[rows - 5] = f"{rows - 5},oops\n"

    with pytest.raises(RejectedError, match=f"row {rows - 4}, column a: 'oops'"):
        read_epoch("time,a\n" + "".join(lines))


def test_blocks_join_without_losing_a_row() -> None:
    rows = 3 * BLOCK_BYTES // 20
    table = read_epoch("time,a\n" + "".join(f"{at},{at * 0.5}\n" for at in range(rows)))

    assert table.times.tolist() == list(range(rows))
    assert (table.values[:, 0] == np.arange(rows) * 0.5).all()


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
def test_numbers_are_read_to_the_last_bit(numbers: list[float]) -> None:
    text = "time,a\n" + "".join(f"{at},{number!r}\n" for at, number in enumerate(numbers))

    assert read_epoch(text).values[:, 0].tolist() == numbers


@pytest.mark.parametrize(
    ("row", "code", "field"),
    [("\ufeff", "ragged_row", "file"), ("\ufeff2024-01-01,1", "bad_time", "time"), ("\ufeff,1", "bad_time", "time")],
)
def test_a_byte_order_mark_is_one_only_where_the_file_begins(row: str, code: str, field: str) -> None:
    with pytest.raises(RejectedError) as refusal:
        read(f"time,a\n{row}")

    assert (refusal.value.code, refusal.value.field) == (code, field)


@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf")
def test_bytes_of_any_kind_are_read_or_refused(data: bytes) -> None:
    answers = []
    for head in (b"", b"time,a\n"):
        try:
            table = read(head + data)
        except RejectedError as refusal:
            # The code "rejected" is too general: it does not name the cause.
            answers.append(refusal.code != "rejected" and refusal.field is not None)
        else:
            answers.append(table.values.shape == (table.rows, len(table.columns)))
    assert answers == [True, True]


def test_a_path_is_read_like_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("time,a\n2024-01-01,2\n")

    assert read_table(path, limits=UploadLimits(), settings=ReadSettings()).rows == 1


def test_reading_does_not_import_pandas() -> None:
    code = (
        "import io, sys; from flts.errors import RejectedError; from flts.ingest.reader import read_table\n"
        "from flts.recipe_settings import ReadSettings; from flts.settings import UploadLimits\n"
        "text = b'd,h,unique_id,a,b\\n2024-01-01,00:00,n,1,True\\n2024-01-01,01:00,n,n/a,1\\n,,,n/a,'\n"
        "try: read_table(io.BytesIO(text), limits=UploadLimits(), settings=ReadSettings())\n"
        "except RejectedError as error: assert error.code == 'missing_time', error\n"
        "sys.exit('pandas' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
