from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flts.errors import RejectedError
from flts.forecasting.grid import FixedGrid, Grid
from flts.forecasting.series import (
    GAPS_NAMED,
    GridReport,
    Series,
    check_grid,
    iso,
    paths_from,
    regularise,
    segment_starts,
)
from tests.made_series import make_series


def grid(times: list[int], *, max_gap_steps: int = 2, given: Grid | None = None) -> tuple[Series, GridReport]:
    values = np.arange(len(times), dtype=float)[:, None]
    return regularise(np.array(times), ("down",), values, max_gap_steps=max_gap_steps, grid=given, time_column="when")


def test_a_short_gap_becomes_missing_rows_in_their_places() -> None:
    series, report = grid([0, 60, 120, 300, 360])

    assert series.times.tolist() == [0, 60, 120, 180, 240, 300, 360]
    np.testing.assert_array_equal(series.values[:, 0], [0, 1, 2, np.nan, np.nan, 3, 4])
    assert (report.inserted_rows, report.filled_gaps, report.cut_gaps, report.segments) == (2, 1, 0, 1)
    assert report.gaps == [{"after": "1970-01-01T00:02:00Z", "steps": 3, "action": "filled"}]


def test_a_gap_of_one_row_more_than_allowed_cuts_the_series() -> None:
    series, report = grid([0, 60, 120, 360, 420])

    assert len(series) == 5
    assert series.segments() == [slice(0, 3), slice(3, 5)]
    assert (report.inserted_rows, report.cut_gaps, report.off_grid_gaps, report.segments) == (0, 1, 0, 2)
    assert report.gaps == [{"after": "1970-01-01T00:02:00Z", "steps": 4, "action": "cut"}]


def test_a_difference_that_is_no_multiple_of_the_step_cuts_the_series_and_is_reported() -> None:
    series, report = grid([0, 60, 120, 210, 270])

    assert series.segments() == [slice(0, 3), slice(3, 5)]
    assert (report.off_grid_gaps, report.cut_gaps) == (1, 1)
    assert report.gaps[0]["steps"] == 1.5


def test_no_row_is_inserted_in_a_gap_off_the_grid_however_short() -> None:
    series, report = grid([0, 60, 120, 270, 330])

    assert series.times.tolist() == [0, 60, 120, 270, 330]
    assert (report.inserted_rows, report.filled_gaps, report.segments) == (0, 0, 2)


def test_a_given_step_is_kept_though_another_difference_is_more_common() -> None:
    series, report = grid([0, 120, 240], given=FixedGrid(60))

    assert series.grid == FixedGrid(60)
    assert len(series) == 5
    assert report.grid == FixedGrid(60)


def test_the_report_names_only_the_longest_gaps() -> None:
    times = np.cumsum([0, *([60] * 100), *[60 * (gap + 5) for gap in range(50)]]).tolist()

    report = grid(times)[1]

    assert report.cut_gaps == 50
    assert [gap["steps"] for gap in report.gaps] == list(range(54, 54 - GAPS_NAMED, -1))


@pytest.mark.parametrize(("times", "code"), [([0, 60, 30], "unordered_times"), ([0, 60, 60], "duplicate_times")])
def test_times_that_do_not_increase_are_refused_naming_the_time_column_and_the_row(times: list[int], code: str) -> None:
    with pytest.raises(RejectedError) as refused:
        grid(times)

    assert refused.value.code == code
    assert refused.value.field == "when"
    assert "row 3" in refused.value.message


def test_times_without_a_common_step_are_refused_before_they_fill_the_memory() -> None:
    times = np.cumsum([0, 1, 1, *range(1000, 2000)]).tolist()

    with pytest.raises(RejectedError) as refused:
        grid(times, max_gap_steps=10_000)

    assert refused.value.code == "irregular_times"


@given(st.lists(st.integers(1, 6), min_size=1, max_size=40), st.integers(0, 5))
@settings(deadline=None)
def test_every_row_is_kept_and_every_segment_is_even(differences: list[int], max_gap_steps: int) -> None:
    times = np.cumsum([0, *differences])

    series, report = grid(times.tolist(), max_gap_steps=max_gap_steps)

    original = np.isin(series.times, times)
    np.testing.assert_array_equal(series.values[original, 0], np.arange(len(times)))
    assert np.isnan(series.values[~original]).all()
    assert (~original).sum() == report.inserted_rows
    segments = series.segments()
    assert sum(segment.stop - segment.start for segment in segments) == len(series)
    for segment in segments:
        assert (np.diff(series.times[segment]) == series.grid.step_seconds).all()
    starts = np.concatenate([np.full(segment.stop - segment.start, segment.start) for segment in segments])
    np.testing.assert_array_equal(segment_starts(series.times, series.grid), starts)


def test_a_request_must_lie_on_the_grid() -> None:
    check_grid(np.array([0, 60, 120]), FixedGrid(60))
    for times, code in (([0, 120], "gap_in_rows"), ([0, 0], "duplicate_times"), ([60, 0], "unordered_times")):
        with pytest.raises(RejectedError) as refused:
            check_grid(np.array(times), FixedGrid(60), time_column="ts")
        assert (refused.value.code, refused.value.field) == (code, "ts")


def test_columns_are_found_by_name() -> None:
    series = make_series(5, ("a", "b", "c"))

    np.testing.assert_array_equal(series.select(("c", "a")).values, series.values[:, [2, 0]])
    with pytest.raises(RejectedError) as refused:
        series.select(("a", "d"))
    assert refused.value.field == "d"


def test_a_later_series_is_joined_by_column_names() -> None:
    series = make_series(10, ("a", "b"))

    joined = series.rows(0, 6).concat(series.rows(6).select(("b", "a")))

    np.testing.assert_array_equal(joined.values, series.values)
    np.testing.assert_array_equal(joined.times, series.times)


def test_rows_that_overlap_or_have_another_step_are_not_joined() -> None:
    series = make_series(10)
    other_step = Series(series.times[6:], series.columns, series.values[6:], FixedGrid(60))

    for earlier, later, code in (
        (series.rows(0, 6), series.rows(5), "overlapping_times"),
        (series.rows(0, 6), other_step, "different_steps"),
    ):
        with pytest.raises(RejectedError) as refused:
            earlier.concat(later)
        assert refused.value.code == code


def test_a_series_of_another_shape_cannot_be_made() -> None:
    with pytest.raises(RejectedError, match="shape"):
        Series(np.array([0, 60]), ("a",), np.zeros((2, 2)), FixedGrid(60))


def test_a_time_is_shown_in_utc() -> None:
    assert iso(1_517_874_000) == "2018-02-05T23:40:00Z"


def test_paths_end_at_the_end_of_their_segment() -> None:
    values = np.arange(10.0, 16.0)[:, None]
    starts = np.array([0, 0, 0, 3, 3, 3])

    paths = paths_from(np.array([0, 1, 4]), 3, values, starts)

    nan = np.nan
    np.testing.assert_array_equal(paths[..., 0], [[10, 11, 12], [11, 12, nan], [14, 15, nan]])
