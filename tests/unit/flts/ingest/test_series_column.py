"""A long file: each series becomes a column, and a broken one is left out."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from flts.errors import RejectedError
from flts.ingest.reader import read_table
from flts.ingest.table import RawTable
from flts.recipe_settings import RecipeSettings
from flts.settings import UploadLimits

SERIES, ROWS, HOUR = 6, 50, 3_600
Change = Callable[[int, int, str], tuple[int, str]]


def lines(change: Change, changed: frozenset[int]) -> Iterator[str]:
    yield "unique_id,time,y"
    for series in range(SERIES):
        for row in range(ROWS):
            time, cell = 1_700_000_000 + HOUR * row, str(series + row / 10)
            if series in changed:
                time, cell = change(row, time, cell)
            yield f"s{series},{time},{cell}"


def read(change: Change, *changed: int) -> RawTable:
    text = "\n".join([*lines(change, frozenset(changed)), ""])
    return read_table(io.BytesIO(text.encode()), limits=UploadLimits(), settings=RecipeSettings())


def text(row: int, time: int, cell: str) -> tuple[int, str]:
    return time, "broken" if row >= 3 else cell


def infinite(row: int, time: int, cell: str) -> tuple[int, str]:
    return time, "1e999" if row == 4 else cell


def half_an_hour_late(_: int, time: int, cell: str) -> tuple[int, str]:
    return time + HOUR // 2, cell


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (text, "row 54, column y: 'broken' is not a number"),
        (infinite, "row 55, column y: infinite or too large"),
        (half_an_hour_late, "its rows in column unique_id are at times between those of the other series"),
    ],
)
def test_a_broken_series_is_left_out_with_the_reason(change: Change, why: str) -> None:
    table = read(change, 1)

    assert table.columns == ("s0", "s2", "s3", "s4", "s5")
    assert table.rows == ROWS
    assert np.isfinite(table.values).all()
    [note] = [note for note in table.notes if "left out" in note]
    assert note.startswith(f"series s1 is left out: {why}")


def test_each_broken_series_names_its_own_row() -> None:
    notes = [note for note in read(text, 1, 3).notes if "left out" in note]

    assert [note.partition(" is left out: ")[2][:7] for note in notes] == ["row 54,", "row 154"]


@pytest.mark.parametrize("change", [text, infinite])
def test_a_file_whose_series_are_mostly_broken_is_refused(change: Change) -> None:
    with pytest.raises(RejectedError) as caught:
        read(change, 1, 2, 3, 4)
    assert caught.value.field == "y"


def test_a_series_that_ended_before_the_others_begin_is_kept() -> None:
    table = read(lambda _, time, cell: (time - 100 * HOUR + HOUR // 2, cell), 0)

    assert table.columns[0] == "s0"
    assert table.rows == 2 * ROWS


def test_series_with_times_of_their_own_are_kept() -> None:
    shifts = iter(range(SERIES * ROWS))
    table = read(lambda _, time, cell: (time + next(shifts), cell), *range(SERIES))

    assert len(table.columns) == SERIES


def test_as_many_series_are_read_as_a_file_may_have_columns() -> None:
    many = "unique_id,time,y\n" + "".join(
        f"s{at},{1_700_000_000 + HOUR * row},1\n" for at in range(1_001) for row in (0, 1)
    )

    with pytest.raises(RejectedError, match="more than 1,000 series") as caught:
        read_table(io.BytesIO(many.encode()), limits=UploadLimits(), settings=RecipeSettings())
    assert caught.value.code == "too_many_series"
