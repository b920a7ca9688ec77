"""Gzip, Parquet and Excel files are read as the CSV with the same rows."""

from __future__ import annotations

import gzip
import io
import zipfile
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from flts.errors import RejectedError
from flts.ingest.reader import read_table
from flts.ingest.table import RawTable
from flts.recipe_settings import ReadSettings
from flts.settings import UploadLimits
from tests.file_formats import excel_of, parquet_of

ROWS = 50
START = datetime(2024, 3, 1)  # noqa: DTZ001 - times without a zone
TIMES = [START + timedelta(hours=row) for row in range(ROWS)]
SECONDS = [1_709_251_200 + 3600 * row for row in range(ROWS)]
LOAD = [row + 0.25 for row in range(ROWS)]
CSV = "time,load\n" + "".join(f"{time},{load}\n" for time, load in zip(TIMES, LOAD, strict=True))


def read(data: bytes, limits: UploadLimits | None = None) -> RawTable:
    return read_table(io.BytesIO(data), limits=limits or UploadLimits(), settings=ReadSettings())


SHEET: list[list[object]] = [["time", "load"], *([time, load] for time, load in zip(TIMES, LOAD, strict=True))]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (gzip.compress(CSV.encode()), "format: gzip"),
        (gzip.compress(CSV[:99].encode()) + gzip.compress(CSV[99:].encode()), "format: gzip"),
        (gzip.compress(CSV.encode("utf-16")), "encoding: utf-16-le"),
        (parquet_of(time=TIMES, load=LOAD), "format: Parquet"),
        (parquet_of(load=LOAD, __index_level_0__=TIMES), "format: Parquet"),
        (parquet_of(time=[time.replace(tzinfo=UTC) for time in TIMES], load=LOAD), "format: Parquet"),
        (parquet_of(time=pa.array(TIMES, pa.timestamp("ns")), load=LOAD, names=[["x"]] * ROWS), "format: Parquet"),
        (parquet_of(time=[str(time) for time in TIMES], load=LOAD, note=["a\nb"] * ROWS), "text: note"),
        (parquet_of(time=pa.array([str(time) for time in TIMES]).dictionary_encode(), load=LOAD), "format: Parquet"),
        (excel_of(SHEET), "sheet: Sheet1, the first with a table"),
        (excel_of([["a remark"]], [["Meter", 12], [None], *SHEET, ["50 rows exported"]]), "sheet: Sheet2 of 2"),
        (excel_of([[*row, True] if at else [*row, "on"] for at, row in enumerate(SHEET)]), "true is read as 1"),
    ],
)
def test_every_format_is_read_as_its_csv(data: bytes, said: str) -> None:
    table = read(data)

    assert table.times.tolist() == SECONDS
    assert table.values[:, 0].tolist() == LOAD
    assert any(said in note for note in table.notes)


def test_dates_and_missing_cells_of_parquet() -> None:
    days = [date(2024, 1, 1), date(2024, 1, 2), date(2024, 1, 3)]
    table = read(parquet_of(day=days, a=[1, None, 3], b=[True, False, None]))

    np.testing.assert_array_equal(table.values, [[1, 1], [np.nan, 0], [3, np.nan]])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (gzip.compress(b"time,load\n" + b"2024-01-01,1\n" * 10_000_000, 9), "too_large"),
        (excel_of([["x" * 50_000_000] * 1]), "too_large"),
        (excel_of([["a remark"]]), "empty_file"),
        (parquet_of(time=TIMES, load=LOAD)[:-20], "unreadable"),
        (b"PAR1" + bytes(40) + (40).to_bytes(4, "little") + b"PAR1", "unreadable"),
        (gzip.compress(CSV.encode())[:-20], "unreadable"),
        (excel_of([["time", "load"]]).replace(b"PK\x01\x02\x14\x03\x14", b"PK\x01\x02\x14\x03\xbe"), "unreadable"),
        (gzip.compress(gzip.compress(CSV.encode())), "not_csv"),
    ],
)
def test_bombs_and_damaged_files_are_refused(data: bytes, code: str) -> None:
    with pytest.raises(RejectedError) as refusal:
        read(data, UploadLimits(max_upload_bytes=20_000_000))

    assert (refusal.value.code, refusal.value.field) == (code, "file")


def test_another_zip_file_is_no_workbook() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("train.csv", CSV)

    with pytest.raises(RejectedError, match="no Excel workbook") as refusal:
        read(out.getvalue())
    assert refusal.value.code == "not_csv"
