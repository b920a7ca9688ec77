from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flts.errors import RejectedError, SeriesTooShortError
from flts.forecasting.grid import FixedGrid
from flts.forecasting.recipe import (
    RecipeSpec,
    all_targets,
    fit_recipe,
    imputed_rows,
    kept_rows,
    scale_targets,
    scaled_rows,
    transform,
    unscale_targets,
)
from flts.forecasting.scaling import Scaler
from flts.forecasting.series import Series
from flts.forecasting.splits import as_train
from flts.recipe_settings import ReadSettings, RecipeSettings
from tests.made_series import START, STEP_SECONDS, make_series, with_values

NAN = np.nan
ELEVEN = (
    *("down", "up", "rnti_count", "mcs_down", "mcs_down_var", "mcs_up", "mcs_up_var"),
    *("rb_down", "rb_down_var", "rb_up", "rb_up_var"),
)


def small(**columns: list[float]) -> Series:
    values = np.array(list(columns.values()), dtype=float).T
    return Series(START + STEP_SECONDS * np.arange(len(values)), tuple(columns), values, FixedGrid(STEP_SECONDS))


def test_the_spec_has_the_names_and_defaults_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RecipeSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    settings_of_the_service = RecipeSettings()

    assert RecipeSpec.of(settings_of_the_service) == RecipeSpec()
    # These settings are used before the recipe is fitted, so they are no part of it.
    elsewhere = set(ReadSettings.model_fields) | {
        "train_test_split", "sample_train_rows", "sample_test_rows", "sample_strategy", "sample_seed",
        "extra_hash_salt", "step", "holidays",
    }  # fmt: skip
    assert {field.name for field in fields(RecipeSpec)} == set(RecipeSettings.model_fields) - elsewhere


def test_eleven_columns_become_seventeen_features_named_in_order() -> None:
    series = make_series(50, ELEVEN)

    features = transform(fit_recipe(as_train(series), RecipeSpec()), series)

    assert features.values.shape == (50, 17)
    assert features.names == (
        *ELEVEN,
        *("min_of_day_sin", "min_of_day_cos", "day_of_week_sin", "day_of_week_cos", "day_of_year_sin"),
        "day_of_year_cos",
    )


def test_without_time_features_only_the_columns_are_left() -> None:
    series = make_series(50, ELEVEN)

    assert fit_recipe(as_train(series), RecipeSpec(time_features_enable=False)).feature_names == ELEVEN


def test_a_column_with_more_missing_cells_than_the_threshold_is_dropped_and_named_with_the_reason() -> None:
    series = small(a=[1, 2, 3, 4], b=[NAN, NAN, 3, 4], c=[NAN, 2, 3, 4])

    recipe = fit_recipe(as_train(series), RecipeSpec(nans_threshold=0.25))

    assert recipe.columns == ("a", "c")
    assert recipe.dropped == {"b": "50.0% of its training cells are missing, NANS_THRESHOLD allows 25.0%"}


def test_a_dropped_column_is_accepted_and_ignored_afterwards() -> None:
    series = small(a=[1, 2, 3, 4], b=[NAN, NAN, 3, 4])
    recipe = fit_recipe(as_train(series), RecipeSpec(), ignored=("note",))
    request = small(b=[1, 2], note=[NAN, NAN], a=[5, 6])

    assert transform(recipe, request).values[:, 0].tolist() == [(5 - 1) / 3, (6 - 1) / 3]
    assert not transform(recipe, request).imputed.any()


def test_a_column_without_any_value_is_dropped_whatever_the_threshold() -> None:
    recipe = fit_recipe(as_train(small(a=[1, 2], b=[NAN, NAN])), RecipeSpec(nans_threshold=1.0))

    assert recipe.columns == ("a",)


def test_a_file_without_a_usable_column_is_refused_naming_the_threshold() -> None:
    with pytest.raises(RejectedError) as refused:
        fit_recipe(as_train(small(a=[NAN, NAN, 1])), RecipeSpec())

    assert (refused.value.code, refused.value.field) == ("no_columns", "NANS_THRESHOLD")


@pytest.mark.parametrize(("target", "code"), [("b", "target_dropped"), ("z", "unknown_target")])
def test_a_target_that_was_dropped_or_is_not_there_is_refused_by_name(target: str, code: str) -> None:
    with pytest.raises(RejectedError) as refused:
        fit_recipe(as_train(small(a=[1, 2], b=[NAN, NAN])), RecipeSpec(targets=("a", target)))

    assert (refused.value.code, refused.value.field) == (code, "TARGETS")
    assert f"target {target} " in refused.value.message


def test_every_kept_column_is_a_target_unless_targets_are_named() -> None:
    series = small(a=[1, 2], b=[3, 4], c=[NAN, NAN])

    assert fit_recipe(as_train(series), RecipeSpec()).targets == ("a", "b")
    assert fit_recipe(as_train(series), RecipeSpec(targets=("b", "b"))).targets == ("b",)


def test_a_missing_cell_takes_the_last_value_of_its_segment_and_before_any_the_training_median() -> None:
    train = small(a=[1, 2, 9], b=[1, 1, 4])
    recipe = fit_recipe(as_train(train), RecipeSpec(scaler="none"))
    later = small(a=[NAN, 5, NAN, NAN, NAN, 7], b=[NAN, NAN, 6, 7, NAN, NAN])
    cut = Series(
        later.times + np.array([0, 0, 0, 9, 9, 9]) * STEP_SECONDS, later.columns, later.values, FixedGrid(STEP_SECONDS)
    )

    filled, missing = imputed_rows(recipe, cut)

    assert filled[:, 0].tolist() == [2, 5, 5, 2, 2, 7]
    assert filled[:, 1].tolist() == [1, 1, 6, 7, 7, 7]
    np.testing.assert_array_equal(missing, np.isnan(later.values))
    np.testing.assert_array_equal(transform(recipe, cut).imputed, missing)


def test_an_infinity_counts_as_missing() -> None:
    recipe = fit_recipe(as_train(small(a=[1, 2, np.inf, 3])), RecipeSpec())

    assert (recipe.offset, recipe.scale) == ((1.0,), (2.0,))
    assert scaled_rows(recipe, small(a=[1, -np.inf, 3]))[0].tolist() == [[0], [0], [1]]


@pytest.mark.parametrize("spec", [RecipeSpec(nans_drop_rows=True), RecipeSpec(handle_nans=False)])
def test_rows_with_missing_cells_are_dropped_where_asked_and_the_series_is_cut_there(spec: RecipeSpec) -> None:
    series = small(a=[1, 2, NAN, 4, 5, 6], b=[1, 2, 3, 40, 5, 6])

    recipe = fit_recipe(as_train(series), spec)
    features = transform(recipe, series)

    assert features.segments() == [slice(0, 2), slice(2, 5)]
    assert features.times.tolist() == series.times[[0, 1, 3, 4, 5]].tolist()
    assert not features.imputed.any()
    assert kept_rows(recipe, series).tolist() == [True, True, False, True, True, True]


def test_statistics_are_of_the_rows_that_stay() -> None:
    series = small(a=[1, 2, NAN, 4], b=[1, 2, 300, 4])

    assert fit_recipe(as_train(series), RecipeSpec(nans_drop_rows=True)).scale == (3.0, 3.0)
    assert fit_recipe(as_train(series), RecipeSpec()).scale == (3.0, 299.0)


def test_a_training_part_without_a_complete_row_is_refused_where_others_are_dropped() -> None:
    series = small(a=[1, NAN, 3, NAN], b=[NAN, 2, NAN, 4])

    with pytest.raises(SeriesTooShortError, match="NANS_DROP_ROWS"):
        fit_recipe(as_train(series), RecipeSpec(nans_drop_rows=True, nans_threshold=0.5))


def test_outliers_are_clipped_to_bounds_of_the_training_part_before_the_scaler_sees_them() -> None:
    train = small(a=[*range(1, 101), 10_000])
    recipe = fit_recipe(as_train(train), RecipeSpec(clip_enable=True))
    assert recipe.clip_upper is not None
    upper = recipe.clip_upper[0]
    assert upper == 76 + 1.5 * 50  # the quartiles of the 101 training values are 26 and 76

    scaled = transform(recipe, small(a=[1, 1e9, -1e9])).values[:, 0]

    assert recipe.scale == (upper - 1,)
    assert scaled.tolist() == [0, 1, (26 - 1.5 * 50 - 1) / (upper - 1)]


def test_without_clipping_values_outside_the_training_range_stay_outside() -> None:
    recipe = fit_recipe(as_train(small(a=[0, 1])), RecipeSpec())

    assert recipe.clip_lower is None
    assert scaled_rows(recipe, small(a=[3, -2]))[0].tolist() == [[3], [-2]]


def test_add_val_is_added_to_measured_columns_and_lags_but_not_to_time_features() -> None:
    series = make_series(20, ("a",))
    plain = transform(fit_recipe(as_train(series), RecipeSpec(lags_enable=True)), series).values

    moved = transform(fit_recipe(as_train(series), RecipeSpec(lags_enable=True, add_val=2)), series).values

    np.testing.assert_allclose(moved - plain, np.tile([2, *[0] * 6, 2, 2, 2], (17, 1)), atol=1e-12)


def test_lags_are_earlier_values_of_the_varying_targets_and_the_warm_up_is_left_out() -> None:
    series = small(a=list(range(10)), b=[7] * 10, c=[x * x for x in range(10)], d=list(range(10)))
    spec = RecipeSpec(
        lags_enable=True, lags_n=2, lags_step=3, targets=("c", "b", "a"), scaler="none", time_features_enable=False
    )
    recipe = fit_recipe(as_train(series), spec)

    features = transform(recipe, series)

    assert features.names == ("a", "b", "c", "d", "c_lag_3", "c_lag_6", "a_lag_3", "a_lag_6")
    assert recipe.warmup_rows == 6
    assert features.times[0] == series.times[6]
    assert features.values[0].tolist() == [6, 7, 36, 6, 9, 0, 3, 0]
    assert features.values[-1].tolist() == [9, 7, 81, 9, 36, 9, 6, 3]


def test_lags_do_not_reach_across_a_cut() -> None:
    series = small(a=list(range(8)))
    cut = Series(series.times + np.where(np.arange(8) < 4, 0, 999), ("a",), series.values, FixedGrid(STEP_SECONDS))
    spec = RecipeSpec(lags_enable=True, lags_n=2, scaler="none", time_features_enable=False)
    recipe = fit_recipe(as_train(cut), spec)

    assert transform(recipe, cut).values.tolist() == [[2, 1, 0], [3, 2, 1], [6, 5, 4], [7, 6, 5]]
    unknown = transform(recipe, cut, drop_warmup=False).values
    np.testing.assert_array_equal(unknown[[0, 1, 4, 5]], [[0, NAN, NAN], [1, 0, NAN], [4, NAN, NAN], [5, 4, NAN]])


@pytest.mark.parametrize("scaler", ["MinMaxScaler", "StandardScaler", "RobustScaler", "MaxAbsScaler", "none"])
def test_a_constant_column_is_kept_with_the_scale_1_and_answered_exactly(scaler: Scaler) -> None:
    series = small(a=[1, 2, 3, 4], b=[0.1, NAN, 0.1, 0.1])

    recipe = fit_recipe(as_train(series), RecipeSpec(scaler=scaler))

    assert recipe.columns == ("a", "b")
    assert recipe.constants == {"b": 0.1}
    assert recipe.scale[1] == 1
    assert recipe.varying_targets == ("a",)
    assert all_targets(recipe, np.array([[5.0], [6.0]])).tolist() == [[5, 0.1], [6, 0.1]]


def test_a_model_sees_a_constant_column_as_constant_whatever_a_request_says() -> None:
    recipe = fit_recipe(as_train(small(a=[1, 2, 3], b=[4, 4, 4])), RecipeSpec(add_val=1))

    scaled = scaled_rows(recipe, small(a=[1, 2], b=[4e9, NAN]))[0]

    assert scaled[:, 1].tolist() == [1, 1]


def test_data_of_only_constants_has_no_varying_target_and_is_answered() -> None:
    recipe = fit_recipe(as_train(small(a=[1, 1], b=[2, 2])), RecipeSpec(lags_enable=True))

    assert recipe.varying_targets == ()
    assert all_targets(recipe, np.empty((3, 0))).tolist() == [[1, 2]] * 3
    assert transform(recipe, small(a=[1] * 5, b=[2] * 5)).values.shape == (2, 8)


@pytest.mark.parametrize("name", ["min_of_day_sin", "a_lag_1"])
def test_a_column_named_like_a_made_feature_is_refused(name: str) -> None:
    with pytest.raises(RejectedError) as refused:
        fit_recipe(as_train(make_series(20, ("a", name))), RecipeSpec(lags_enable=True, targets=("a",)))

    assert (refused.value.code, refused.value.field) == ("reserved_name", name)


def test_a_name_of_a_feature_that_is_not_made_is_free() -> None:
    series = make_series(20, ("a", "a_lag_1"))

    assert fit_recipe(as_train(series), RecipeSpec()).columns == ("a", "a_lag_1")


@pytest.mark.parametrize("scaler", ["MinMaxScaler", "StandardScaler", "none"])
def test_values_beyond_what_can_be_scaled_are_refused_naming_the_column(scaler: Scaler) -> None:
    with pytest.raises(RejectedError) as refused:
        fit_recipe(as_train(small(a=[1, 2], b=[-1.7e308, 1.7e308])), RecipeSpec(scaler=scaler))

    assert (refused.value.code, refused.value.field) == ("values_too_large", "b")


def test_no_training_rows_are_refused() -> None:
    with pytest.raises(SeriesTooShortError):
        fit_recipe(as_train(make_series(0)), RecipeSpec())


@pytest.mark.parametrize(
    ("columns", "code", "field"),
    [(("down", "up"), "missing_column", "load"), (("down", "x", "load", "up"), "unknown_column", "x")],
)
def test_a_missing_or_unknown_column_of_a_request_is_refused_by_name(
    columns: tuple[str, ...], code: str, field: str
) -> None:
    recipe = fit_recipe(as_train(make_series(20)), RecipeSpec())

    for _ in range(2):  # calls twice, because the first refusal must not make the column known to the recipe
        with pytest.raises(RejectedError) as refused:
            scaled_rows(recipe, make_series(5, columns))
        assert (refused.value.code, refused.value.field) == (code, field)


def test_reversing_the_columns_changes_nothing() -> None:
    series = make_series(40, missing=0.1)
    recipe = fit_recipe(as_train(series), RecipeSpec(lags_enable=True))

    np.testing.assert_array_equal(
        transform(recipe, series.select(series.columns[::-1])).values, transform(recipe, series).values
    )


@given(extra=st.integers(0, 20), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_extra_rows_before_a_window_without_nulls_change_nothing(extra: int, seed: int) -> None:
    series = make_series(40, seed=seed, missing=0.1)
    values = series.values.copy()
    values[-10:] = make_series(10, seed=seed + 1).values
    series = with_values(series, values)
    recipe = fit_recipe(as_train(make_series(40, seed=seed)), RecipeSpec())

    rows = scaled_rows(recipe, series.rows(30 - extra))[0]

    np.testing.assert_array_equal(rows[-10:], scaled_rows(recipe, series.rows(30))[0])


@given(
    scaler=st.sampled_from(["MinMaxScaler", "StandardScaler", "RobustScaler", "MaxAbsScaler", "none"]),
    add_val=st.floats(-10, 10),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=50)
def test_unscaling_is_the_inverse_of_scaling(scaler: Scaler, add_val: float, seed: int) -> None:
    series = make_series(50, seed=seed)
    spec = RecipeSpec(scaler=scaler, add_val=add_val, targets=("load", "down"))
    recipe = fit_recipe(as_train(series), spec)
    raw = series.select(("load", "down")).values

    scaled = scale_targets(recipe, raw)

    np.testing.assert_allclose(unscale_targets(recipe, scaled), raw, rtol=1e-9)
    np.testing.assert_array_equal(scaled, transform(recipe, series).values[:, recipe.varying_columns])


def test_the_series_itself_is_never_written_to() -> None:
    series = make_series(30, missing=0.1)
    before = series.values.copy()
    recipe = fit_recipe(as_train(series), RecipeSpec(clip_enable=True, scaler="none", lags_enable=True))

    transform(recipe, series)

    np.testing.assert_array_equal(series.values, before)
