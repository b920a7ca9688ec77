"""Rows are sorted and each time is kept once; what happened is said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flts.errors import RejectedError
from flts.ingest.rows import Duplicates, in_order

NAN = np.nan


def order(
    times: list[int], values: list[list[float]], duplicates: Duplicates = "mean"
) -> tuple[list[int], list[list[float]], list[str]]:
    found, rows, notes = in_order(np.array(times), np.array(values), duplicates=duplicates, column="time")
    return found.tolist(), rows.tolist(), notes


def test_rows_in_order_stay_as_they_are() -> None:
    assert order([1, 2, 3], [[1], [2], [3]]) == ([1, 2, 3], [[1], [2], [3]], [])


@pytest.mark.parametrize(
    ("times", "words"), [([3, 2, 1], "the newest row is the first"), ([2, 3, 1], "not in the order")]
)
def test_other_rows_are_sorted(times: list[int], words: str) -> None:
    found, values, notes = order(times, [[float(time)] for time in times])

    assert (found, values) == ([1, 2, 3], [[1], [2], [3]])
    assert words in notes[0]


def test_equal_repeats_are_kept_once_and_counted() -> None:
    found, values, notes = order([1, 1, 2, 2, 2], [[1, NAN], [1, NAN], [2, 2], [2, 2], [2, 2]])

    assert found == [1, 2]
    np.testing.assert_array_equal(values, [[1, NAN], [2, 2]])
    assert notes == ["3 rows repeat an earlier row exactly and are left out"]


@pytest.mark.parametrize(("duplicates", "expected"), [("mean", [[2, 4]]), ("first", [[1, NAN]]), ("last", [[3, 4]])])
def test_other_repeats_are_joined_by_the_setting(duplicates: Duplicates, expected: list[list[float]]) -> None:
    found, values, notes = order([60, 60], [[1, NAN], [3, 4]], duplicates)

    assert found == [60]
    np.testing.assert_array_equal(values, expected)
    assert "2 rows share 1 times" in notes[0]
    assert f"1970-01-01T00:01:00Z in time; DUPLICATES={duplicates}" in notes[0]


def test_repeats_can_be_refused() -> None:
    with pytest.raises(RejectedError, match="DUPLICATES=refuse") as refusal:
        order([1, 1], [[1], [2]], "refuse")
    assert (refusal.value.code, refusal.value.field) == ("duplicate_times", "time")
    assert order([1, 1], [[1], [1]], "refuse")[0] == [1]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-5, 5)), min_size=1, max_size=40))
def test_the_mean_is_that_of_a_plain_loop(rows: list[tuple[int, int]]) -> None:
    found, values, _ = order([time for time, _ in rows], [[float(value)] for _, value in rows])

    groups = {time: [value for at, value in rows if at == time] for time in sorted({time for time, _ in rows})}
    assert found == list(groups)
    np.testing.assert_allclose([row[0] for row in values], [np.mean(group) for group in groups.values()], atol=1e-12)
