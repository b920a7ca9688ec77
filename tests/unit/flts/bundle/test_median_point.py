"""`POINT=median`: the forecasts of a bundle are moved by the median residual."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from flts.bundle.forecaster import Forecaster
from flts.bundle.format import Bundle
from flts.bundle.model import BundleModel
from flts.errors import RejectedError
from flts.forecasting.intervals import Intervals
from tests.made_bundles import made_bundle, skewed_series

SERIES = skewed_series()
MODEL_TYPES = ("LINEAR", "PERSISTENCE", "SEASONAL_NAIVE", "MEAN", "RIDGE")


def read_back(bundle: Bundle, model_bytes: bytes) -> Forecaster:
    return Forecaster(BundleModel(Bundle.from_json(bundle.to_json()), model_bytes))


def median_at(intervals: Intervals, horizon: int) -> np.ndarray:
    """Return the median residual (h, m), by numpy's interpolation, which holds the last value."""
    values = intervals.at_level(0.5)
    assert values is not None
    ahead = np.arange(1, horizon + 1)
    return np.column_stack([np.interp(ahead, intervals.steps, column) for column in values.T])


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_forecast_is_the_mean_plus_the_median_residual_within_the_limits_and_its_band(model_type: str) -> None:
    bundle, model_bytes = made_bundle(model_type, point="median")
    free = read_back(replace(bundle, point="mean", limits={}), model_bytes)
    median = read_back(bundle, model_bytes)

    found, mean = median.forecast(SERIES, 60), free.forecast(SERIES, 60).mean

    assert median.bundle.intervals is not None
    expected = mean + median_at(median.bundle.intervals, 60)
    expected[:, 0] = np.maximum(expected[:, 0], 0)  # the column that is never negative in the training rows
    np.testing.assert_allclose(found.mean, expected, rtol=1e-12)
    assert abs(found.mean - mean).max() > 0.03
    assert found.lower is not None
    assert found.upper is not None
    assert (found.lower <= found.mean).all()
    assert (found.mean <= found.upper).all()


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_band_stays_where_it_is_at_the_calibrated_steps(model_type: str) -> None:
    bundle, model_bytes = made_bundle(model_type, point="median")
    mean = read_back(replace(bundle, point="mean", limits={}), model_bytes)
    median = read_back(replace(bundle, limits={}), model_bytes)
    assert mean.bundle.intervals is not None
    assert mean.bundle.intervals.lower is not None
    steps = mean.bundle.calibrated_steps

    one, other = mean.forecast(SERIES, steps), median.forecast(SERIES, steps)

    # Where the mean is outside of its quantiles, its band is wider than they are; see `bounds`.
    assert one.lower is not None
    assert other.lower is not None
    assert (other.lower >= one.lower - 1e-9).all()
    inside = (mean.bundle.intervals.lower < 0).all(axis=0)
    np.testing.assert_allclose(other.lower[:, inside], one.lower[:, inside], atol=1e-9)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_forecasts_from_many_origins_are_those_of_requests(model_type: str) -> None:
    forecaster = read_back(*made_bundle(model_type, point="median"))
    origins = np.array([400, 500])

    many = forecaster.forecast_origins(SERIES, origins, 30)

    for origin, one in zip(origins, many, strict=True):
        np.testing.assert_allclose(one, forecaster.forecast(SERIES.rows(0, int(origin)), 30).mean, rtol=1e-6)


def test_the_median_is_written_only_if_it_is_the_point() -> None:
    mean, _ = made_bundle("PERSISTENCE")
    median, _ = made_bundle("PERSISTENCE", point="median")

    assert "point" not in json.loads(mean.to_json())
    assert json.loads(median.to_json())["point"] == "median"
    assert median.format_version == 2
    assert Bundle.from_json(median.to_json()).to_json() == median.to_json()


def test_data_without_limits_have_a_bundle_of_format_2_with_the_median() -> None:
    bundle, _ = made_bundle("RIDGE", lower_bound="none", point="median")

    assert (bundle.format_version, bundle.point, dict(bundle.limits)) == (2, "median", {})


def test_a_model_without_intervals_forecasts_the_mean() -> None:
    short = skewed_series(12)  # eight rows in the folds are too few for intervals

    mean, median = (read_back(*made_bundle("PERSISTENCE", 12, point=point)) for point in ("mean", "median"))

    assert (median.bundle.point, median.bundle.calibrated_steps) == ("mean", 0)
    np.testing.assert_array_equal(median.forecast(short, 3).mean, mean.forecast(short, 3).mean)


def test_a_median_that_is_not_among_the_quantiles_is_refused() -> None:
    bundle, _ = made_bundle("PERSISTENCE", point="median")
    assert bundle.intervals is not None
    edges = Intervals.between(0.9, (1,), np.zeros((1, 2)), np.ones((1, 2)))

    for intervals in (None, edges):
        with pytest.raises(RejectedError, match="point is median") as refused:
            replace(bundle, intervals=intervals).to_json()
        assert refused.value.code == "bad_bundle"
