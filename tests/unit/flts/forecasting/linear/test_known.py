"""The effects of inputs known ahead: found where they are, absent where they are not."""

from __future__ import annotations

import numpy as np
import pytest

from flts.forecasting.grid import FixedGrid
from flts.forecasting.known_inputs import KnownInputs
from flts.forecasting.linear.known import TakenOut
from flts.forecasting.linear.rows import table_of
from flts.forecasting.recipe import measured_only
from flts.forecasting.series import FloatArray, Series
from tests.known_ahead import EFFECT, sales, training_set, with_holidays


def raw_weights(series: Series, stop: int, **spec: tuple[str, ...]) -> FloatArray:
    """Return the weights of the first target in raw units per unit of each input."""
    data = training_set(series, **spec)
    recipe, features = measured_only(data.recipe, data.features)
    table, _ = table_of(features, fit_stop=data.tails.fit_stop)
    _, effects = TakenOut.of(table, recipe, features).at(stop)
    assert effects is not None
    [target] = recipe.varying_columns
    scales = np.concatenate([recipe.scales[recipe.known_columns], np.ones(len(recipe.holidays))])
    inputs = len(scales)
    weights: FloatArray = effects.weights[:inputs, target] * recipe.scales[target] / scales
    return weights


WHITE = np.zeros(600)
WALK = np.random.default_rng(5).normal(0, 1, 600).cumsum()
YEAR = 20 * np.sin(2 * np.pi * np.arange(600) / 365)


@pytest.mark.parametrize(("level", "error"), [(WHITE, 0.1), (WALK, 0.4), (YEAR, 0.1)], ids=["white", "walk", "year"])
def test_the_effect_of_a_promotion_is_found_on_any_level(level: FloatArray, error: float) -> None:
    [promotion] = raw_weights(sales(level=level), 600, targets=("sales",), future_columns=("promotion",))

    assert promotion == pytest.approx(EFFECT, abs=error)


def test_a_useless_input_has_nearly_no_effect() -> None:
    promotion, dice = raw_weights(sales(), 600, targets=("sales",), future_columns=("promotion", "dice"))

    assert promotion == pytest.approx(EFFECT, abs=0.1)
    assert abs(dice) < 0.1


def test_two_walks_that_have_nothing_in_common_are_not_regressed_on_each_other() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(20):
        base = sales(400)
        walks = rng.normal(size=(400, 2)).cumsum(axis=0)
        series = Series(base.times, ("sales", "promotion"), walks, base.grid)
        found += raw_weights(series, 400, targets=("sales",), future_columns=("promotion",)).tolist()

    # A regression of the levels has weights of 0.5 and more in most pairs of walks.
    assert np.abs(found).mean() < 0.05


def test_later_rows_have_no_part_in_the_weights() -> None:
    series = sales()
    changed = series.values.copy()
    changed[500:, 0] += 1_000 * series.values[500:, 1]
    same_scale = {"targets": ("sales",), "future_columns": ("promotion",)}

    before = raw_weights(series, 500, **same_scale)
    after = raw_weights(Series(series.times, series.columns, changed, series.grid), 500, **same_scale)

    np.testing.assert_allclose(before, after, rtol=1e-6)


def test_imputed_cells_and_gaps_do_not_bend_the_weights() -> None:
    series = sales()
    values = series.values.copy()
    values[100:160:7, 0] = np.nan
    kept = np.r_[0:300, 340:600]
    holes = Series(series.times[kept], series.columns, values[kept], series.grid)

    [promotion] = raw_weights(holes, len(kept), targets=("sales",), future_columns=("promotion",))

    assert promotion == pytest.approx(EFFECT, abs=0.1)


def test_few_rows_and_constant_inputs_have_no_effect() -> None:
    series = sales(600)
    assert not raw_weights(series.rows(0, 60), 12, targets=("sales",), future_columns=("promotion",)).any()
    flat = series.values.copy()
    flat[:500, 1] = 1.0
    constant_so_far = Series(series.times, series.columns, flat, series.grid)
    assert not raw_weights(constant_so_far, 500, targets=("sales",), future_columns=("promotion",)).any()


def test_a_holiday_moves_the_day_itself() -> None:
    series = with_holidays(900, FixedGrid(86_400), -6.0)

    weights = raw_weights(series, 900, holidays=("DE",))

    names = list(training_set(series, holidays=("DE",)).recipe.holidays)
    assert weights[names.index("holiday_DE")] == pytest.approx(-6.0, abs=0.5)
    assert np.abs(np.delete(weights, names.index("holiday_DE"))).max() < 0.7


def test_holidays_of_rows_within_a_day_have_a_shape_of_the_day() -> None:
    hours = training_set(with_holidays(24 * 120, FixedGrid(3_600), -1.0), holidays=("DE",)).recipe
    known = KnownInputs.of(hours, waves=2)
    assert known is not None
    day = 18_628 * 86_400  # 1 January 2021

    found = known(np.zeros((24, 0)), day + 3_600 * np.arange(24))

    column = list(hours.holidays).index("holiday_DE")
    wide = found.reshape(24, 5, len(hours.holidays))[:, :, column]
    angle = 2 * np.pi * np.arange(24) / 24
    expected = [np.ones(24), np.sin(angle), np.cos(angle), np.sin(2 * angle), np.cos(2 * angle)]
    np.testing.assert_allclose(wide, np.stack(expected, axis=1), atol=1e-12)


def test_a_recipe_without_known_columns_has_no_inputs() -> None:
    assert KnownInputs.of(training_set(sales()).recipe) is None
