from __future__ import annotations

import pytest

from flts.times import is_date, is_time_of_day, score_as_time


@pytest.mark.parametrize(
    ("cells", "score"),
    [
        (["2024-01-31", "2024-02-01"], 1.0),
        (["31.01.2024 12:00"], 1.0),
        (["1/31/2024 1:05 PM", ""], 1.0),
        (["Jan 2020", "Q1 2020", "2020-W05", "1949M01", "1949-01"], 1.0),
        (["20240131"], 0.9),
        (["1709251200", "1709251200000"], 0.5),
        (["1885"], 0.4),
        (["45200"], 0.3),
        (["2024-01-31", "total"], 0.5),
        (["5.3", "-12", "0", "1e5", "20241399"], 0.0),
        (["north", "rain", "True", "12:00", "31/31/2024"], 0.0),
        ([""], 0.0),
        ([], 0.0),
    ],
)
def test_the_score_is_the_share_of_times_and_numbers_count_less(cells: list[str], score: float) -> None:
    assert score_as_time(cells) == pytest.approx(score)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["01/03/2024", "", "13/03/2024"], True),
        (["20240131"], True),
        (["2024-01-31 12:00"], False),
        (["2024-01"], False),
        (["45200"], False),
        (["", " "], False),
        (["2024-01-31", "x"], False),
    ],
)
def test_a_date_has_a_day_and_no_time_of_day(cells: list[str], expected: bool) -> None:
    assert is_date(cells) is expected


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["00:00:00", "23:59:59.5", ""], True),
        (["1:30 PM", "12 AM"], True),
        (["9:05"], True),
        (["24:00"], True),
        (["25:00"], False),
        (["13:00 PM"], False),
        (["12"], False),
        (["1200"], False),
        (["2024-01-31"], False),
        ([], False),
    ],
)
def test_a_time_of_day_has_no_date(cells: list[str], expected: bool) -> None:
    assert is_time_of_day(cells) is expected
