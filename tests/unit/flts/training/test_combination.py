from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flts.bundle.forecaster import Forecaster
from flts.bundle.format import Bundle
from flts.bundle.model import BundleModel
from flts.forecasting.intervals import Intervals
from flts.forecasting.recipe import transform
from flts.forecasting.series import FloatArray
from flts.training.bundling import Identity
from flts.training.combination import CombinedAnswer, combinable, make_combination
from tests.direct_models import direct_bundle, hourly_series

SERIES = hourly_series(24 * 30)
HORIZON = 24
IDENTITY = Identity("direct", "c" * 64, "COMBINATION", "f" * 64)
DAY = direct_bundle(SERIES, season=24, length=48, horizon=HORIZON)
WEEK = direct_bundle(SERIES, season=168, length=200, horizon=HORIZON)
ANSWER = CombinedAnswer(
    Intervals(0.9, (1, HORIZON), (0.05, 0.5, 0.95), np.sort(np.random.default_rng(1).normal(size=(3, 2, 2)), axis=0)),
    {"c0": (0.0, None)},
    "mean",
    {"val_mae": 0.5},
)


def combined(members: list[tuple[Bundle, bytes]], weights: FloatArray) -> tuple[Bundle, bytes]:
    recipe = members[0][0].recipe
    features = transform(recipe, SERIES)
    return make_combination(members, weights, ANSWER, IDENTITY, recipe=recipe, features=features, threads=1)


def weights_of(seed: int, members: int = 2) -> FloatArray:
    found = np.random.default_rng(seed).uniform(size=(members, HORIZON, 2))
    return found / found.sum(axis=0)


def test_the_forecast_is_the_weighted_sum_of_the_members() -> None:
    weights = weights_of(0)
    forecaster = Forecaster(BundleModel(*combined([DAY, WEEK], weights)))
    own = [Forecaster(BundleModel(*one)).forecast(SERIES, HORIZON).mean for one in (DAY, WEEK)]
    assert forecaster.forecast(SERIES, HORIZON).mean == pytest.approx((weights * np.array(own)).sum(axis=0), rel=1e-5)
    bundle = forecaster.bundle
    assert (bundle.rows_required, bundle.seasons, bundle.inputs) == (200, (24, 168), ("past", "places", "clock"))
    assert (bundle.fitted_until, bundle.max_horizon_steps) == (int(SERIES.times[-1]), None)
    assert bundle.intervals is not None
    assert bundle.intervals.values is not None
    assert bundle.limits == {"c0": (0.0, None)}


def test_a_member_without_weight_is_left_out() -> None:
    weights = np.stack([np.ones((HORIZON, 2)), np.zeros((HORIZON, 2))])
    bundle, model_bytes = combined([DAY, WEEK], weights)
    assert (bundle.rows_required, bundle.seasons) == (48, (24,))
    alone = Forecaster(BundleModel(*DAY)).forecast(SERIES, HORIZON).mean
    assert Forecaster(BundleModel(bundle, model_bytes)).forecast(SERIES, HORIZON).mean == pytest.approx(alone, rel=1e-6)


def test_equal_members_give_equal_bytes() -> None:
    assert combined([DAY, WEEK], weights_of(3)) == combined([DAY, WEEK], weights_of(3))


def test_only_direct_models_of_one_horizon_are_combined() -> None:
    other = direct_bundle(SERIES, horizon=12)[0]
    rolled = replace(DAY[0], input_kind="window")
    assert combinable([rolled, DAY[0], other, WEEK[0]]) == [1, 3]
    assert combinable([rolled]) == []


def test_the_seasons_of_all_members_fit_into_a_bundle() -> None:
    more = [replace(DAY[0], seasons=seasons) for seasons in ((24, 168), (24, 12), (7,), (12, 168))]
    assert combinable(more) == [0, 1, 3]


def test_columns_that_are_scaled_otherwise_are_not_combined() -> None:
    recipe = DAY[0].recipe
    scaled = replace(DAY[0], recipe=replace(recipe, scale=(recipe.scale[0], 2 * recipe.scale[1])))
    assert combinable([WEEK[0], scaled]) == [0]
