from __future__ import annotations

import math

import pytest

from flts.forecasting.student_t import upper_tail


@pytest.mark.parametrize(
    ("statistic", "degrees", "tail"),
    # From a table of Student's t distribution.
    [
        (31.821, 1, 0.01),
        (2.920, 2, 0.05),
        (2.353, 3, 0.05),
        (4.541, 3, 0.01),
        (10.215, 3, 0.001),
        (3.747, 4, 0.01),
        (3.365, 5, 0.01),
        (3.143, 6, 0.01),
        (2.998, 7, 0.01),
        (4.785, 7, 0.001),
        (2.228, 10, 0.025),
        (2.364, 100, 0.01),
        (1.645, 1_000_000, 0.05),
    ],
)
def test_the_upper_tail_agrees_with_the_tables(statistic: float, degrees: int, tail: float) -> None:
    assert upper_tail(statistic, degrees) == pytest.approx(tail, rel=1e-3)
    assert upper_tail(-statistic, degrees) == pytest.approx(1 - tail, abs=1e-4)


@pytest.mark.parametrize("statistic", [1e-9, 0.3, 1.0, 2.5, 40.0, 1e5])
def test_one_and_two_degrees_have_closed_forms(statistic: float) -> None:
    cauchy = math.atan2(1.0, statistic) / math.pi
    root = math.sqrt(2 + statistic**2)
    two = 1 / (root * (root + statistic))

    assert upper_tail(statistic, 1) == pytest.approx(cauchy, rel=1e-10)
    assert upper_tail(statistic, 2) == pytest.approx(two, rel=1e-10)


def test_half_is_above_zero_and_nothing_above_infinity() -> None:
    assert upper_tail(0.0, 5) == pytest.approx(0.5)
    assert upper_tail(math.inf, 5) == 0.0
    assert upper_tail(-math.inf, 5) == 1.0
    assert upper_tail(1e200, 5) == 0.0
    assert math.isnan(upper_tail(math.nan, 5))
