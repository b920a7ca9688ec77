"""No leakage: neither the fit on the training part nor the features of a row depend on later rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from flts.errors import RejectedError
from flts.forecasting.recipe import Features, FittedRecipe, RecipeSpec, fit_recipe, scaled_rows, transform
from flts.forecasting.rolling import RollState, roll_forecast
from flts.forecasting.series import Series
from flts.forecasting.splits import as_train, tails
from flts.forecasting.windows import Windows, training_windows
from flts.ingest.layout import lay_out
from flts.ingest.table import RawTable
from flts.recipe_settings import RecipeSettings
from tests.made_series import linear_model, make_series, with_values

WINDOW = 5
SPLIT = RecipeSettings(train_test_split=0.8)

specs = st.builds(
    RecipeSpec,
    handle_nans=st.booleans(),
    nans_threshold=st.sampled_from([0.05, 0.33, 1.0]),
    nans_drop_rows=st.booleans(),
    clip_enable=st.booleans(),
    clip_method=st.sampled_from(["iqr", "percentile", "sigma"]),
    clip_factor=st.sampled_from([0.5, 1.5, 10.0]),
    time_features_enable=st.booleans(),
    lags_enable=st.booleans(),
    lags_n=st.integers(1, 3),
    lags_step=st.integers(1, 3),
    scaler=st.sampled_from(["MinMaxScaler", "StandardScaler", "RobustScaler", "MaxAbsScaler", "none"]),
    add_val=st.sampled_from([0.0, 1.5]),
    targets=st.sampled_from([(), ("down",), ("load", "down")]),
)
missing_shares = st.sampled_from([0.0, 0.04, 0.2])


def changed_after(series: Series, row: int, seed: int) -> Series:
    """Return the series with other values after ``row``: larger, missing and infinite ones."""
    rng = np.random.default_rng(seed)
    values = series.values.copy()
    later = values[row:]
    later[:] = rng.normal(0, 10.0 ** rng.integers(0, 12), later.shape)
    later[rng.random(later.shape) < 0.2] = np.nan
    later[rng.random(later.shape) < 0.05] = np.inf
    later[-1, 0] = 1.0  # rows without a value at the end are no rows of the split
    return with_values(series, values)


def fitted(series: Series, spec: RecipeSpec) -> tuple[FittedRecipe, Features] | str:
    train = as_train(lay_out(RawTable(series.times, series.columns, series.values, "time"), None, SPLIT).train)
    try:
        recipe = fit_recipe(train, spec)
    except RejectedError as refused:
        return f"{refused.code} {refused.message}"
    return recipe, transform(recipe, train.series)


@given(spec=specs, missing=missing_shares, seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=150)
def test_changing_rows_after_the_training_part_changes_nothing_inside_it(
    spec: RecipeSpec, missing: float, seed: int
) -> None:
    series = make_series(100, seed=seed, missing=missing)
    series.values[-1, 0] = 1.0  # as in `changed_after`, so that both series have the same rows

    before = fitted(series, spec)
    after = fitted(changed_after(series, 80, seed), spec)

    if isinstance(before, str) or isinstance(after, str):
        assert before == after
        return
    assert before[0] == after[0]
    assert before[0].to_dict() == after[0].to_dict()
    np.testing.assert_array_equal(before[1].times, after[1].times)
    np.testing.assert_array_equal(before[1].values, after[1].values)
    np.testing.assert_array_equal(before[1].imputed, after[1].imputed)


@given(spec=specs, missing=missing_shares, seed=st.integers(0, 10_000), row=st.integers(20, 59))
@settings(deadline=None, max_examples=150)
def test_with_the_fitted_numbers_held_later_rows_change_no_earlier_feature_or_forecast(
    spec: RecipeSpec, missing: float, seed: int, row: int
) -> None:
    series = make_series(60, seed=seed, missing=missing)
    try:
        recipe = fit_recipe(as_train(make_series(60, seed=seed + 1, missing=missing / 2)), spec)
    except RejectedError:
        reject()
    other = changed_after(series, row, seed)

    earlier, unchanged = (
        transform(recipe, either, drop_warmup=drop) for either, drop in ((series, True), (other, True))
    )

    old, new = earlier.times < series.times[row], unchanged.times < series.times[row]
    np.testing.assert_array_equal(earlier.times[old], unchanged.times[new])
    np.testing.assert_array_equal(earlier.values[old], unchanged.values[new])
    model = linear_model(recipe, window_steps=WINDOW, horizon_steps=1)
    forecasts = []
    for either in (series, other):
        state = RollState.at_origins(
            recipe,
            scaled=scaled_rows(recipe, either)[0],
            times=either.times,
            origins=np.array([row]),
            input_seq_len=WINDOW,
        )
        forecasts.append(roll_forecast(model, state, 4 if recipe.forecasts_its_inputs else 1))
    np.testing.assert_array_equal(forecasts[0], forecasts[1])


@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=20)
def test_windows_to_fit_on_know_nothing_of_the_tails(seed: int) -> None:
    series = make_series(100, seed=seed)
    recipe = fit_recipe(as_train(series), RecipeSpec())
    shared = tails(100, stop_tail=0.1, calibration_tail=0.1)

    def fit_windows(either: Series) -> Windows:
        return training_windows(transform(recipe, either), recipe, shared, input_seq_len=WINDOW, output_seq_len=2).fit

    before, after = fit_windows(series), fit_windows(changed_after(series, shared.fit_stop, seed))

    np.testing.assert_array_equal(before.inputs, after.inputs)
    np.testing.assert_array_equal(before.targets, after.targets)
