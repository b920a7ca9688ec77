from __future__ import annotations

import numpy as np
import pytest

from flts.forecasting.calibration import rolled_residuals
from flts.forecasting.grid import FixedGrid
from flts.forecasting.intervals import calibrate
from flts.forecasting.recipe import RecipeSpec, fit_recipe, transform
from flts.forecasting.series import FloatArray, Series
from flts.forecasting.splits import as_train, tails
from flts.forecasting.windows import Float32Array
from tests.made_series import START, STEP_SECONDS, make_series, with_values

WINDOW = 4


def last_value(windows: Float32Array) -> FloatArray:
    """Forecast the last value of the first column, as a window model of one step."""
    return windows[:, -1:, :1].astype(np.float64)


def staircase(rows: int) -> Series:
    """Return a series that rises by 3 per row: the error of persistence is 3 for each step ahead."""
    times = START + STEP_SECONDS * np.arange(rows)
    return Series(times, ("down",), 3.0 * np.arange(rows, dtype=np.float64)[:, None], FixedGrid(STEP_SECONDS))


def residuals_of(series: Series, *, targets: tuple[str, ...] = (), most: int = 128) -> dict[int, FloatArray]:
    recipe = fit_recipe(as_train(series), RecipeSpec(targets=targets))
    features = transform(recipe, series)
    shared = tails(len(features), stop_tail=0.1, calibration_tail=0.2)
    return rolled_residuals(
        last_value, recipe, features, shared, input_seq_len=WINDOW, output_seq_len=1, max_rolled_origins=most
    )


def test_residuals_are_in_raw_units_at_each_step_ahead() -> None:
    residuals = residuals_of(staircase(200))

    assert list(residuals) == [1, 2, 5, 10]
    for step, found in residuals.items():
        # A tolerance, because float32 windows round the values.
        np.testing.assert_allclose(found, 3.0 * step, rtol=1e-3)


def test_one_pass_has_every_row_of_the_tail_as_origin_and_longer_ones_an_even_part() -> None:
    residuals = residuals_of(staircase(200), most=10)

    assert len(residuals[1]) == 40
    assert {step: len(found) for step, found in residuals.items() if step > 1} == {2: 10, 5: 10, 10: 10}


def test_imputed_actuals_and_those_beyond_a_cut_are_missing() -> None:
    series = staircase(200)
    values = series.values.copy()
    values[190] = np.nan

    imputed = residuals_of(with_values(series, values))[1]

    assert np.flatnonzero(np.isnan(imputed[:, 0])).tolist() == [30]
    cut = Series(
        series.times + np.where(np.arange(200) < 170, 0, 999), ("down",), series.values, FixedGrid(STEP_SECONDS)
    )
    found = residuals_of(cut)
    assert len(found[1]) == 40 - WINDOW
    assert np.isfinite(found[1]).all()
    # Ten steps fit after origins 160 to 190. Origins 170 to 173 are left out: their window would cross the cut at row
    # 170. The tenth step of origins 161 to 169 is beyond the cut, so its residual is missing.
    assert np.isnan(found[10][:, 0]).tolist() == [False] + [True] * 9 + [False] * 17


def test_a_recipe_that_does_not_forecast_its_inputs_is_calibrated_for_one_pass() -> None:
    assert list(residuals_of(make_series(200), targets=("down",))) == [1]


def test_a_walk_s_interval_widens_with_the_steps_ahead_and_covers_its_share() -> None:
    rng = np.random.default_rng(0)
    walk = rng.normal(size=4000).cumsum()[:, None]
    series = Series(START + STEP_SECONDS * np.arange(4000), ("down",), walk, FixedGrid(STEP_SECONDS))

    intervals = calibrate(residuals_of(series))

    assert intervals.lower is not None
    assert intervals.upper is not None
    widths = (intervals.upper - intervals.lower)[:, 0]
    at_one, at_thirty = widths[0], widths[intervals.steps.index(30)]
    assert at_one == pytest.approx(2 * 1.645, rel=0.1)
    assert at_thirty / at_one == pytest.approx(30**0.5, rel=0.35)
