from __future__ import annotations

import numpy as np
import pytest

from flts.forecasting.theta.decomposition import season_profile

PROFILE = np.array([3.0, -1.0, 0.5, -2.5])
FACTORS = np.array([1.3, 0.9, 0.7, 1.1])


def test_the_season_on_a_straight_line_is_found_exactly() -> None:
    at = np.arange(30)
    values = 100 + 2 * at + PROFILE[at % 4]

    assert season_profile(values, [slice(0, 30)], at % 4, 4, "additive") == pytest.approx(PROFILE)


def test_the_factors_of_a_level_are_found_exactly_for_an_odd_season_too() -> None:
    at = np.arange(20)
    factors = np.array([1.2, 0.7, 1.1])

    assert season_profile(50 * FACTORS[at % 4], [slice(0, 20)], at % 4, 4, "multiplicative") == pytest.approx(FACTORS)
    assert season_profile(50 * factors[at % 3], [slice(0, 20)], at % 3, 3, "multiplicative") == pytest.approx(factors)


def test_no_average_crosses_a_gap_and_a_place_without_a_value_is_neutral() -> None:
    at = np.arange(24)
    values = PROFILE[at % 4]
    values[12:] += 1_000

    two = season_profile(values, [slice(0, 12), slice(12, 24)], at % 4, 4, "additive")
    short = season_profile(values, [slice(0, 6), slice(6, 9)], at % 4, 4, "additive")

    assert two == pytest.approx(PROFILE)
    # Only rows 2 and 3 of six have two rows on both sides.
    assert short == pytest.approx(np.array([0, 0, 0.5, -2.5]) + 0.5)
