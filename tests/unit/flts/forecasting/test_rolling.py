from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flts.errors import RejectedError, SeriesTooShortError
from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.recipe import RecipeSpec, all_targets, fit_recipe, scaled_rows, transform, unscale_targets
from flts.forecasting.rolling import SPARE_ROWS, RollState, WindowModel, can_roll, roll_forecast
from flts.forecasting.series import FloatArray, Series
from flts.forecasting.splits import as_train
from flts.forecasting.windows import sliding_windows
from tests.made_series import linear_model, make_series, with_values

WINDOW = 10


def state_after(recipe: FittedRecipe, series: Series, window: int = WINDOW) -> RollState:
    scaled, _ = scaled_rows(recipe, series)
    return RollState.start(recipe, scaled=scaled[None], last_times=series.times[-1:], input_seq_len=window)


def plain_loop(model: WindowModel, recipe: FittedRecipe, series: Series, horizon_steps: int) -> FloatArray:
    """Append each pass to the raw series and run `transform` on all of it: slow, but simple enough as a reference."""
    context = len(series)
    while len(series) < context + horizon_steps:
        window = transform(recipe, series).values[-WINDOW:].astype(np.float32)
        forecast = unscale_targets(recipe, model(window[None])[0])
        times = series.times[-1] + series.grid.step_seconds * np.arange(1, len(forecast) + 1)
        columns = dict(zip(recipe.targets, all_targets(recipe, forecast).T, strict=True))
        columns |= {name: np.full(len(forecast), value) for name, value in recipe.constants.items()}
        values = np.array([columns[name] for name in series.columns]).T
        series = series.concat(Series(times, series.columns, values, series.grid))
    return series.select(recipe.targets).values[context : context + horizon_steps]


@pytest.mark.parametrize("steps_a_pass", [1, 7])
@pytest.mark.parametrize("lags", [False, True])
@pytest.mark.parametrize("time_features", [False, True])
def test_a_rolled_horizon_of_60_equals_the_plain_loop(steps_a_pass: int, lags: bool, time_features: bool) -> None:
    series = make_series(100, ("down", "still", "up"), missing=0.03)
    values = series.values.copy()
    values[:, 1] = 42
    series = with_values(series, values)
    spec = RecipeSpec(
        lags_enable=lags,
        lags_n=2,
        lags_step=4,
        time_features_enable=time_features,
        targets=("up", "still", "down"),
        scaler="StandardScaler",
        add_val=0.5,
    )
    recipe = fit_recipe(as_train(series), spec)
    model = linear_model(recipe, window_steps=WINDOW, horizon_steps=steps_a_pass)

    rolled = roll_forecast(model, state_after(recipe, series), 60)

    answer = all_targets(recipe, unscale_targets(recipe, rolled[0]))
    assert answer.shape == (60, 3)
    np.testing.assert_allclose(answer, plain_loop(model, recipe, series, 60), rtol=1e-6)


def test_the_first_window_is_the_one_that_training_cuts() -> None:
    series = make_series(50, missing=0.1)
    recipe = fit_recipe(as_train(series), RecipeSpec(lags_enable=True, clip_enable=True, clip_factor=0.5))
    features = transform(recipe, series)
    windows = sliding_windows(
        features.values, features.values[:, :3], segments=[slice(0, 47)], window_steps=WINDOW, horizon_steps=1
    )
    origins = windows.target_rows + recipe.warmup_rows

    state = RollState.at_origins(
        recipe, scaled=scaled_rows(recipe, series)[0], times=series.times, origins=origins, input_seq_len=WINDOW
    )

    np.testing.assert_array_equal(state.windows(), windows.inputs)
    np.testing.assert_array_equal(
        state.next_times(2), np.stack([series.times[origins], series.times[origins] + 120], 1)
    )


@pytest.mark.parametrize(("steps_a_pass", "horizon_steps"), [(1, 150), (90, 200)])
def test_a_horizon_longer_than_the_room_made_at_once_equals_the_plain_loop(
    steps_a_pass: int, horizon_steps: int
) -> None:
    assert horizon_steps > 2 * SPARE_ROWS
    series = make_series(100, ("down", "up"))
    recipe = fit_recipe(as_train(series), RecipeSpec(lags_enable=True))
    model = linear_model(recipe, window_steps=WINDOW, horizon_steps=steps_a_pass)

    rolled = roll_forecast(model, state_after(recipe, series), horizon_steps)

    expected = plain_loop(model, recipe, series, horizon_steps)
    np.testing.assert_allclose(unscale_targets(recipe, rolled[0]), expected, rtol=1e-6)


def test_the_next_times_follow_what_was_appended() -> None:
    series = make_series(60)
    state = state_after(fit_recipe(as_train(series), RecipeSpec()), series)

    state.append(np.zeros((1, 4, 3)))

    assert state.next_times(2).tolist() == [[series.times[-1] + 5 * 120, series.times[-1] + 6 * 120]]


@given(seed=st.integers(0, 1000), horizon_steps=st.integers(1, 3 * SPARE_ROWS), steps_a_pass=st.integers(1, 80))
@settings(deadline=None, max_examples=25)
def test_origins_rolled_together_answer_as_each_alone(seed: int, horizon_steps: int, steps_a_pass: int) -> None:
    series = make_series(60, ("down", "up"), seed=seed)
    recipe = fit_recipe(as_train(series), RecipeSpec(lags_enable=seed % 2 == 0))
    model = linear_model(recipe, window_steps=WINDOW, horizon_steps=steps_a_pass, seed=seed)
    origins = np.array([20, 41, 60])

    together = roll_forecast(
        model,
        RollState.at_origins(
            recipe, scaled=scaled_rows(recipe, series)[0], times=series.times, origins=origins, input_seq_len=WINDOW
        ),
        horizon_steps,
    )

    assert together.shape == (3, horizon_steps, 2)
    for position, origin in enumerate(origins):
        alone = roll_forecast(model, state_after(recipe, series.rows(0, origin)), horizon_steps)
        np.testing.assert_array_equal(together[position], alone[0])


def test_forecasts_are_appended_as_they_are_though_observed_rows_are_clipped() -> None:
    series = make_series(60, ("down",))
    recipe = fit_recipe(as_train(series), RecipeSpec(clip_enable=True, time_features_enable=False))
    state = state_after(recipe, series)

    state.append(np.full((1, 2, 1), 99.0))

    assert state.windows()[0, -3:, 0].tolist()[1:] == [99, 99]


def test_a_window_handed_out_is_not_changed_by_what_comes_later() -> None:
    series = make_series(60)
    recipe = fit_recipe(as_train(series), RecipeSpec())
    state = state_after(recipe, series)
    state.append(np.zeros((1, 1, 3)))
    window = state.windows()
    before = window.copy()

    for _ in range(2 * SPARE_ROWS):
        state.append(np.ones((1, 1, 3)))

    np.testing.assert_array_equal(window, before)


def test_a_recipe_that_does_not_forecast_its_inputs_has_one_pass_and_names_them() -> None:
    series = make_series(60)
    recipe = fit_recipe(as_train(series), RecipeSpec(targets=("down",)))
    model = linear_model(recipe, window_steps=WINDOW, horizon_steps=3)

    assert not can_roll(recipe)
    assert roll_forecast(model, state_after(recipe, series), 3).shape == (1, 3, 1)
    with pytest.raises(RejectedError, match=r"3 steps.* up, load ") as refused:
        roll_forecast(model, state_after(recipe, series), 4)
    assert refused.value.code == "horizon_too_long"
    with pytest.raises(RejectedError, match="up, load"):
        state_after(recipe, series).append(np.zeros((1, 1, 1)))


def test_an_input_that_is_constant_need_not_be_a_target() -> None:
    series = make_series(60, ("down", "still"))
    series.values[:, 1] = 3
    recipe = fit_recipe(as_train(series), RecipeSpec(targets=("down",), add_val=0.25))
    state = state_after(recipe, series)

    state.append(np.zeros((1, 1, 1)))

    assert can_roll(recipe)
    assert state.windows()[0, -2:, 1].tolist() == [0.25, 0.25]


def test_too_few_rows_are_refused_naming_the_number_needed() -> None:
    series = make_series(60)
    recipe = fit_recipe(as_train(series), RecipeSpec(lags_enable=True))
    scaled, _ = scaled_rows(recipe, series)

    with pytest.raises(SeriesTooShortError, match="13 rows"):
        state_after(recipe, series.rows(0, 12))
    with pytest.raises(SeriesTooShortError, match="13 rows"):
        RollState.at_origins(
            recipe, scaled=scaled, times=series.times, origins=np.array([12, 20]), input_seq_len=WINDOW
        )
    assert state_after(recipe, series.rows(0, 13)).windows().shape == (1, WINDOW, len(recipe.feature_names))
