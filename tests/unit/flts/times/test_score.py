from __future__ import annotations

import pytest

from flts.times import score_as_time


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
