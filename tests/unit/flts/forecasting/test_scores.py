from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn import metrics as theirs

from flts.errors import RejectedError
from flts.forecasting.scores import coverage, mae, mape, mase, measure, mse, naive_errors, r2, rmse

NAN = np.nan
ACTUAL = np.array([[1.0], [0.0], [4.0], [NAN], [5.0]])
FORECAST = np.array([[2.0], [1.0], [2.0], [9.0], [5.0]])


def test_scores_are_as_computed_by_hand() -> None:
    # The four known actuals have the errors -1, -1, 2 and 0. The missing actual is left out.
    scored = measure(
        ACTUAL,
        FORECAST,
        naive_scale=np.array([2.0]),
        lower=FORECAST - 1,
        upper=FORECAST + 1,
    )[0]

    assert (scored.n, scored.left_out) == (4, 1)
    assert scored.mse == 6 / 4
    assert scored.rmse == math.sqrt(1.5)
    assert scored.mae == 1
    assert scored.mape == pytest.approx((1 / 1 + 2 / 4 + 0) / 3)
    assert scored.mape_share == 0.75
    assert scored.mase == 0.5
    assert scored.r2 == pytest.approx(1 - 6 / 17)  # squares around the mean 2.5: 2.25 + 6.25 + 2.25 + 6.25 = 17
    assert scored.coverage == 0.75


def test_targets_are_scored_one_by_one() -> None:
    actual, forecast = np.array([[1.0, 10.0], [2.0, 20.0]]), np.array([[1.0, 13.0], [2.0, 24.0]])

    assert [scored.mse for scored in measure(actual, forecast)] == [0, 12.5]
    assert [scored.mase for scored in measure(actual, forecast)] == [None, None]
    assert [scored.coverage for scored in measure(actual, forecast)] == [None, None]


def test_scores_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    actual, forecast = rng.normal(5, 1, 200), rng.normal(5, 1, 200)

    assert mae(actual, forecast) == pytest.approx(theirs.mean_absolute_error(actual, forecast))
    assert mse(actual, forecast) == pytest.approx(theirs.mean_squared_error(actual, forecast))
    assert rmse(actual, forecast) == pytest.approx(theirs.root_mean_squared_error(actual, forecast))
    assert r2(actual, forecast) == pytest.approx(theirs.r2_score(actual, forecast))
    assert mape(actual, forecast)[0] == pytest.approx(theirs.mean_absolute_percentage_error(actual, forecast))


def test_a_forecast_that_is_no_number_scores_no_number_rather_than_being_left_out() -> None:
    scored = measure(ACTUAL, np.where(FORECAST == 1, NAN, FORECAST))[0]

    assert np.isnan([scored.rmse, scored.mae, scored.mse]).all()
    assert scored.n == 4
    json.dumps(scored.as_dict(), allow_nan=False)
    assert scored.as_dict()["rmse"] is None


def test_without_any_actual_nothing_is_scored() -> None:
    scored = measure(np.full((3, 1), NAN), np.zeros((3, 1)), lower=np.zeros((3, 1)), upper=np.zeros((3, 1)))[0]

    assert (scored.n, scored.left_out) == (0, 3)
    assert (scored.mape, scored.r2, scored.coverage) == (None, None, None)
    assert np.isnan([scored.rmse, scored.mae, scored.mse]).all()


def test_numbers_that_are_not_defined_are_none() -> None:
    assert r2(np.ones(3), np.zeros(3)) is None
    assert mape(np.zeros(3), np.ones(3)) == (None, 0.0)
    assert mase(1.0, 0.0) is None
    assert mase(1.0, NAN) is None
    assert coverage(np.array([NAN]), np.zeros(1), np.zeros(1)) is None


def test_bounds_themselves_are_covered() -> None:
    assert coverage(np.array([1.0, 2.0, 3.0, 4.0]), np.full(4, 2.0), np.full(4, 3.0)) == 0.5


def test_the_naive_error_is_of_one_season_back_within_segments() -> None:
    values = np.array([[0.0], [1.0], [3.0], [NAN], [100.0], [104.0], [102.0]])
    segments = [slice(0, 4), slice(4, 7)]

    assert naive_errors(values, segments).tolist() == [(1 + 2 + 4 + 2) / 4]
    assert naive_errors(values, segments, season_steps=2).tolist() == [(3 + 2) / 2]
    assert np.isnan(naive_errors(values, segments, season_steps=9)).all()


def test_actuals_and_forecasts_of_different_shapes_are_not_broadcast() -> None:
    with pytest.raises(RejectedError):
        measure(np.zeros((3, 1)), np.zeros((3, 2)))
    with pytest.raises(RejectedError):
        mae(np.zeros(3), np.zeros((3, 1)))
