from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flts.bundle.forecaster import Forecast, Forecaster
from flts.bundle.model import BundleModel
from flts.errors import RejectedError, SeriesTooShortError
from flts.forecasting.grid import FixedGrid
from flts.forecasting.recipe import RecipeSpec, fit_recipe, transform
from flts.forecasting.series import Series
from flts.forecasting.splits import as_train, tails
from flts.forecasting.time_features import time_features
from flts.training.bundling import Identity, make_bundle
from flts.training.constant import constant_model
from flts.training.fitting import TrainingSet
from tests.linear_models import linear_bundle
from tests.training_sets import STEP, made_series


def forecaster_of(series: Series, spec: RecipeSpec | None = None, **options: int) -> Forecaster:
    return Forecaster(BundleModel(*linear_bundle(series, spec, **options)))


def edited(series: Series, row: int, column: int, value: float) -> Series:
    values = series.values.copy()
    values[row, column] = value
    return replace(series, values=values)


SERIES = made_series(240)


def plain_loop(forecaster: Forecaster, series: Series, steps: int) -> np.ndarray:
    """Forecast step by step with the recipe's numbers: scale, window, model, append, unscale."""
    recipe = forecaster.recipe
    offset, scale = np.array(recipe.offset), np.array(recipe.scale)
    rows = (series.values - offset) / scale
    times = list(series.times)
    for _ in range(steps):
        last = np.array(times[-forecaster.bundle.input_seq_len :])
        window = np.concatenate([rows[-forecaster.bundle.input_seq_len :], time_features(last)], axis=1)
        answer = forecaster.model.run_windows(window[None].astype(np.float32))[0]
        rows = np.concatenate([rows, answer])
        times.append(times[-1] + recipe.step_seconds)
    return rows[-steps:] * scale + offset


def same(one: Forecast, other: Forecast) -> None:
    assert np.array_equal(one.mean, other.mean)
    assert one.lower is not None
    assert other.lower is not None
    assert np.array_equal(one.lower, other.lower)


def test_a_rolled_horizon_equals_the_plain_loop() -> None:
    forecaster = forecaster_of(SERIES)

    forecast = forecaster.forecast(SERIES, 60)

    assert forecast.mean == pytest.approx(plain_loop(forecaster, SERIES, 60), rel=1e-6)
    assert list(forecast.times[:2]) == [SERIES.times[-1] + STEP, SERIES.times[-1] + 2 * STEP]
    assert forecast.calibrated_steps == 3


def test_several_steps_a_pass_are_cut_to_the_horizon() -> None:
    forecaster = forecaster_of(SERIES, horizon=4)

    long, short = forecaster.forecast(SERIES, 10), forecaster.forecast(SERIES, 3)

    assert long.mean.shape == (10, 3)
    assert np.array_equal(long.mean[:3], short.mean)


def test_reversed_columns_and_extra_rows_change_nothing() -> None:
    forecaster = forecaster_of(SERIES)
    names = SERIES.columns[::-1]

    forecast = forecaster.forecast(SERIES, 5)

    same(forecast, forecaster.forecast(SERIES.select(names), 5))
    same(forecast, forecaster.forecast(SERIES.rows(236, 240), 5))


def test_rows_after_the_last_one_have_no_say() -> None:
    forecaster = forecaster_of(SERIES)

    all_origins = forecaster.forecast_origins(SERIES, np.array([100, 150]), 7)
    cut = forecaster.forecast(SERIES.rows(0, 150), 7)

    assert all_origins[1] == pytest.approx(cut.mean, rel=1e-6)


def test_lags_reach_back_before_the_window() -> None:
    forecaster = forecaster_of(SERIES, RecipeSpec(lags_enable=True, lags_n=2, lags_step=3))

    assert forecaster.rows_required == 4 + 6
    forecast = forecaster.forecast(SERIES.rows(230, 240), 9)
    assert forecast.mean == pytest.approx(forecaster.forecast_origins(SERIES, np.array([240]), 9)[0], rel=1e-6)
    with pytest.raises(SeriesTooShortError, match="10 rows are needed, 9 were given"):
        forecaster.forecast(SERIES.rows(231, 240), 1)


def test_bounds_lie_around_the_mean_and_widen_with_the_last_slope() -> None:
    forecast = forecaster_of(SERIES).forecast(SERIES, 5)

    assert forecast.lower is not None
    assert forecast.upper is not None
    # The bundle has lower bounds for two steps: -1 at step 1 and -2 at step 3. Step 2 is interpolated, and later steps
    # continue the slope of -0.5 per step.
    assert forecast.lower[:, 0] - forecast.mean[:, 0] == pytest.approx([-1, -1.5, -2, -2.5, -3])
    assert forecast.upper[:, 2] - forecast.mean[:, 2] == pytest.approx([3, 6, 9, 12, 15])


def test_missing_cells_in_the_window_are_filled_and_counted() -> None:
    forecaster = forecaster_of(SERIES)
    holes = edited(edited(SERIES, 239, 1, np.nan), 100, 0, np.nan)
    filled = edited(SERIES, 239, 1, SERIES.values[238, 1])

    forecast = forecaster.forecast(holes, 3)

    assert forecast.imputed_cells == 1
    assert np.array_equal(forecast.mean, forecaster.forecast(filled, 3).mean)


def test_a_recipe_that_fills_nothing_refuses_a_hole_in_the_window_by_name() -> None:
    forecaster = forecaster_of(SERIES, RecipeSpec(handle_nans=False))

    with pytest.raises(RejectedError, match="c1 is missing in row 240 of 240") as refused:
        forecaster.forecast(edited(SERIES, 239, 1, np.nan), 1)
    assert refused.value.field == "c1"
    assert forecaster.forecast(edited(SERIES, 100, 1, np.nan), 1).mean.shape == (1, 3)
    origins = forecaster.valid_origins(edited(SERIES, 100, 1, np.nan), 0)
    assert not set(origins) & {101, 102, 103, 104}


def test_gaps_in_the_window_are_refused_and_no_origin_looks_across_one() -> None:
    forecaster = forecaster_of(SERIES)
    moved = np.concatenate([SERIES.times[:238], SERIES.times[238:] + 5 * STEP])
    gap = replace(SERIES, times=moved)

    with pytest.raises(RejectedError, match="3600 s after the one before it") as refused:
        forecaster.forecast(gap, 1)
    assert refused.value.code == "uneven_times"
    assert list(forecaster.valid_origins(gap, 230)) == list(range(230, 238))


def test_inputs_that_nobody_forecasts_end_the_horizon() -> None:
    forecaster = forecaster_of(SERIES, RecipeSpec(targets=("c1",)), horizon=2)

    assert forecaster.max_horizon == 2
    assert forecaster.forecast(SERIES, 2).mean.shape == (2, 1)
    with pytest.raises(RejectedError, match="at most 2 steps") as refused:
        forecaster.forecast(SERIES, 3)
    assert refused.value.code == "horizon_too_long"
    with pytest.raises(RejectedError, match="at least one step"):
        forecaster.forecast(SERIES, 0)


def test_constant_targets_are_answered_with_their_constant_between_the_others() -> None:
    values = np.insert(SERIES.values, 1, 42.0, axis=1)
    series = Series(SERIES.times, ("c0", "fixed", "c1", "c2"), values, FixedGrid(STEP))
    forecaster = forecaster_of(series)

    forecast = forecaster.forecast(series, 4)
    origins = forecaster.forecast_origins(series, np.array([50]), 4)

    assert forecast.targets == ("c0", "fixed", "c1", "c2")
    assert (forecast.mean[:, 1] == 42).all()
    assert forecast.lower is not None
    assert (forecast.lower[:, 1] == 42).all()
    assert (forecast.lower[:, [0, 2, 3]] < forecast.mean[:, [0, 2, 3]]).all()
    assert (origins[..., 1] == 42).all()
    assert not (origins[..., 2] == 42).any()


def test_without_calibrated_residuals_there_are_no_bounds() -> None:
    forecaster = Forecaster(BundleModel(*linear_bundle(SERIES, intervals=False)))

    forecast = forecaster.forecast(SERIES, 2)

    assert forecast.lower is None
    assert forecast.upper is None
    assert forecast.calibrated_steps == 0


def test_windows_of_several_requests_may_share_a_call() -> None:
    forecaster = forecaster_of(SERIES)
    requests = [forecaster.passes(SERIES.rows(0, stop), 1) for stop in (100, 200)]

    answers = forecaster.model.run_windows(np.concatenate([next(request)["window"] for request in requests]))
    forecasts = []
    for request, answer in zip(requests, answers, strict=True):
        with pytest.raises(StopIteration) as done:
            request.send(answer[None])
        forecasts.append(done.value.value)

    for forecast, stop in zip(forecasts, (100, 200), strict=True):
        assert forecast.mean == pytest.approx(forecaster.forecast(SERIES.rows(0, stop), 1).mean, rel=1e-6)


def test_data_of_only_constants_is_answered_from_one_row() -> None:
    series = Series(SERIES.times, ("a", "b"), np.tile([3.0, -1.0], (240, 1)), FixedGrid(STEP))
    recipe = fit_recipe(as_train(series), RecipeSpec())
    data = TrainingSet(transform(recipe, series), recipe, tails(240, stop_tail=0.1, calibration_tail=0.1))
    fitted = constant_model(data)
    identity = Identity("made", "c" * 64, "GRU", "d" * 64)
    bundle, model_bytes = make_bundle(fitted, data, identity, threads=1, alive=lambda: None)
    forecaster = Forecaster(BundleModel(bundle, model_bytes))

    forecast = forecaster.forecast(series.rows(239, 240), 100)

    assert bundle.reason == "all_constant"
    assert bundle.rows_required == 1
    assert (forecast.mean == [3.0, -1.0]).all()
    assert forecast.lower is not None
    assert np.array_equal(forecast.lower, forecast.mean)
    assert forecaster.forecast_origins(series, np.array([1, 5]), 3).shape == (2, 3, 2)
