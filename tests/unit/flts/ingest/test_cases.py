"""The files of `tests.case_files` as an upload treats them: read, checked, and made a data set of."""

from __future__ import annotations

import io
import math
import re

import numpy as np
import pytest

from flts.errors import FltsError
from flts.ingest.layout import lay_out
from flts.ingest.reader import read_table
from flts.ingest.report import ValidationReport, validation_report
from flts.ingest.table import RawTable
from flts.recipe_settings import RecipeSettings
from flts.settings import UploadLimits, WindowSettings
from preprocess_container.domain.dataset import make_dataset
from tests.case_files import CASES, Case, Read, Refused

EDITS = re.compile(
    r"\b(edit|rename|reorder|re-?save|save (it|the file|as)|sort the file|remove|delete|keep one|divide(d)? by|write "
    r"\S+ instead|convert the file|change the file|add a header)\b",
    re.IGNORECASE,
)
"""Advice to change the file."""


class UploadSettings(UploadLimits, RecipeSettings, WindowSettings):
    """The settings that the check of an upload reads."""


def settings_of(case: Case) -> UploadSettings:
    return UploadSettings(**{name.lower(): value for name, value in case.settings.items()})  # type: ignore[arg-type]


def tables(case: Case, settings: UploadSettings) -> tuple[RawTable, RawTable | None]:
    train = read_table(io.BytesIO(case.train), limits=settings, settings=settings, name="train")
    if case.test is None:
        return train, None
    source = io.BytesIO(case.test)
    return train, read_table(source, limits=settings, settings=settings, like=train.time_format, name="test")


def checked(case: Case) -> tuple[RawTable, ValidationReport]:
    """Return the training table and the report, after preprocess made a data set of the rows without an error."""
    settings = settings_of(case)
    train, test = tables(case, settings)
    report = validation_report(train, test, settings, settings)
    make_dataset(train, lay_out(train, test, settings), settings, settings)
    return train, report


def cases(kind: type) -> list[object]:
    return [pytest.param(case, id=case.name) for case in CASES if isinstance(case.right, kind)]


def test_the_names_of_the_cases_differ() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", cases(Read))
def test_a_file_is_read_as_it_is(case: Case) -> None:
    right = case.right
    assert isinstance(right, Read)

    table, report = checked(case)

    assert table.columns == right.columns
    assert table.times.tolist() == right.times.tolist()
    for at, (column, values) in enumerate(right.values.items()):
        np.testing.assert_allclose(table.values[:, at], values, rtol=1e-12, err_msg=column)
    assert report.step == right.step
    rows = table.rows
    expected = rows - math.floor(round(rows * 0.8, 9)) if right.test is None else right.test
    assert report.test.rows == expected
    said = "\n".join((*table.notes, *table.understood, *report.warnings))
    for words in right.words:
        assert words in said
    for words in right.silent:
        assert words not in said
    assert not EDITS.search(said), said


@pytest.mark.parametrize("case", cases(Refused))
def test_a_file_with_two_readings_is_refused_with_the_setting(case: Case) -> None:
    right = case.right
    assert isinstance(right, Refused)

    with pytest.raises(FltsError) as refusal:
        checked(case)

    error = refusal.value
    assert (error.code, error.field) == (right.code, right.field), error.message
    for words in right.words:
        assert words in error.message
    assert not EDITS.search(error.message), error.message
