"""One definition of a cell: the same for a number in a file, in Arrow's columns and in a request."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flts.ingest.cell import MISSING, CellFormat

GERMAN = CellFormat(decimal=",", thousands=".")
ENGLISH = CellFormat(thousands=",")
SPACED = CellFormat(decimal=",", thousands="space")


@pytest.mark.parametrize(
    ("form", "cell", "number"),
    [
        (CellFormat(), " 1.5 ", 1.5),
        (CellFormat(), "+.5e-3", 0.0005),
        (CellFormat(), "-Infinity", -math.inf),
        (CellFormat(), "TRUE", 1),
        (CellFormat(), "no", 0),
        (GERMAN, "1.234.567,5", 1234567.5),
        (GERMAN, "1234,5", 1234.5),
        (ENGLISH, "4,820.76", 4820.76),
        (SPACED, "1\u202f234\u00a0567,5", 1234567.5),
        (CellFormat(thousands="apostrophe"), "1'234\u2019567.5", 1234567.5),
    ],
)
def test_numbers_and_truth_values(form: CellFormat, cell: str, number: float) -> None:
    assert form.number(cell) == number


@pytest.mark.parametrize(
    ("form", "cell"),
    [
        (CellFormat(), "1,5"),
        (CellFormat(), "5 %"),
        (CellFormat(), "€ 5"),
        (CellFormat(), "0x10"),
        (CellFormat(), "1_000"),
        (CellFormat(), "٣"),
        (ENGLISH, "48,20.5"),
        (ENGLISH, "4820,760"),
        (GERMAN, "3.48"),
        (CellFormat(), "rain"),
    ],
)
def test_other_cells_are_no_numbers(form: CellFormat, cell: str) -> None:
    assert form.number(cell) is None


@pytest.mark.parametrize("cell", [*MISSING, *(mark.upper() for mark in MISSING), " n/a "])
def test_missing_marks(cell: str) -> None:
    number = CellFormat().number(cell)
    assert number is not None
    assert math.isnan(number)


def test_the_setting_adds_marks_exactly_as_written() -> None:
    form = CellFormat(missing=("x", "-999"))

    assert form.is_missing("x")
    assert form.is_missing("-999")
    assert not form.is_missing("X")


@given(st.integers(-(10**12), 10**12), st.sampled_from([ENGLISH, GERMAN, SPACED]))
def test_grouped_integers_are_read_back(number: int, form: CellFormat) -> None:
    mark = {",": ",", ".": ".", "space": "\u00a0"}[form.thousands]

    assert form.number(f"{number:,}".replace(",", mark)) == number


def test_the_definition_needs_no_library() -> None:
    code = "import sys; import flts.ingest.cell; sys.exit(bool({'numpy', 'pyarrow', 'pandas'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
