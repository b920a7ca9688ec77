"""LINEAR's bundle with inputs known ahead, read and used as a service does."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flts.bundle.forecaster import Forecaster
from flts.bundle.format import Bundle
from flts.bundle.model import BundleModel
from flts.errors import RejectedError
from flts.forecasting.grid import FixedGrid, Grid
from flts.forecasting.series import FloatArray, Series
from tests.known_ahead import DAY, EFFECT, linear_bundle, sales, with_holidays

HORIZON = 14
SERIES = sales(700)
ROLES = {"targets": ("sales",), "future_columns": ("promotion",)}


def read_back(made: tuple[Bundle, bytes]) -> Forecaster:
    return Forecaster(BundleModel(Bundle.from_json(made[0].to_json()), made[1]))


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    rows = SERIES.rows(0, 600).select(("sales", "promotion"))
    return read_back(linear_bundle(rows, horizon=HORIZON, **ROLES))


def ahead_of(row: int, steps: int) -> FloatArray:
    return SERIES.values[row : row + steps, [1]]


def test_a_step_with_a_promotion_is_higher_by_its_effect(forecaster: Forecaster) -> None:
    past = SERIES.rows(0, 600).select(("sales", "promotion"))
    none, one = np.zeros((HORIZON, 1)), np.zeros((HORIZON, 1))
    one[4] = 1.0

    plain, promoted = (forecaster.forecast(past, HORIZON, future).mean[:, 0] for future in (none, one))

    difference = promoted - plain
    assert difference[4] == pytest.approx(EFFECT, abs=0.2)
    np.testing.assert_allclose(np.delete(difference, 4), 0, atol=1e-5)


def test_many_origins_are_forecast_as_each_alone(forecaster: Forecaster) -> None:
    series = SERIES.select(("sales", "promotion"))
    origins = np.array([600, 633, 700 - HORIZON])

    together = forecaster.forecast_origins(series, origins, HORIZON)

    for origin, forecast in zip(origins.tolist(), together, strict=True):
        alone = forecaster.forecast(series.rows(0, origin), HORIZON, ahead_of(origin, HORIZON))
        np.testing.assert_allclose(forecast, alone.mean, rtol=1e-6)
    errors = together[:, :, 0] - SERIES.values[origins[:, None] + np.arange(HORIZON), 0]
    assert np.sqrt(np.square(errors).mean()) < 0.45  # the noise is 0.3, a promotion adds 5


def test_a_longer_forecast_is_rolled_with_the_values_of_its_own_steps(forecaster: Forecaster) -> None:
    past = SERIES.rows(0, 640).select(("sales", "promotion"))
    steps = 2 * HORIZON + 3

    long = forecaster.forecast(past, steps, ahead_of(640, steps)).mean

    first = forecaster.forecast(past, HORIZON, ahead_of(640, HORIZON)).mean
    np.testing.assert_allclose(long[:HORIZON], first, rtol=1e-6)
    fed_back = Series(
        SERIES.times[: 640 + HORIZON],
        past.columns,
        np.concatenate([past.values, np.column_stack([first, ahead_of(640, HORIZON)])]),
        past.grid,
    )
    second = forecaster.forecast(fed_back, HORIZON, ahead_of(640 + HORIZON, HORIZON)).mean
    np.testing.assert_allclose(long[HORIZON : 2 * HORIZON], second, rtol=1e-4)


def test_a_forecast_without_the_values_is_refused(forecaster: Forecaster) -> None:
    with pytest.raises(RejectedError, match="needs the values of promotion") as refused:
        forecaster.forecast(SERIES.rows(0, 600).select(("sales", "promotion")), 3)

    assert refused.value.code == "missing_future"


def test_the_document_names_what_a_request_must_send() -> None:
    bundle, _ = linear_bundle(SERIES.rows(0, 600).select(("sales", "promotion")), horizon=HORIZON, **ROLES)

    assert bundle.future_columns == ("promotion",)
    assert "future" in bundle.inputs
    assert bundle.max_horizon_steps is None
    assert json.loads(bundle.to_json())["recipe"]["future_columns"] == ["promotion"]


def test_a_column_that_is_only_measured_limits_the_forecast_to_the_horizon() -> None:
    bundle, _ = linear_bundle(
        SERIES.rows(0, 600), horizon=HORIZON, past_columns=("dice",), future_columns=("promotion",)
    )

    assert bundle.targets == ("sales",)
    assert bundle.max_horizon_steps == HORIZON


def test_a_future_column_that_never_varied_is_not_asked_for() -> None:
    values = SERIES.values[:600, :2].copy()
    values[:, 1] = 1.0
    bundle, _ = linear_bundle(Series(SERIES.times[:600], ("sales", "promotion"), values, SERIES.grid), **ROLES)

    assert bundle.future_columns == ()
    assert "future" not in bundle.inputs


@pytest.mark.parametrize(("grid", "rows"), [(FixedGrid(DAY), 1_000), (FixedGrid(3_600), 24 * 340)])
def test_holidays_need_nothing_in_the_request(grid: Grid, rows: int) -> None:
    series = with_holidays(rows + 24 * 30, grid, -6.0)
    steps = 24
    made = linear_bundle(series.rows(0, rows), horizon=steps, holidays=("DE",))
    forecaster = read_back(made)
    assert made[0].inputs[-1] == "seconds"
    assert made[0].future_columns == ()
    days = series.times // DAY
    holidays = np.isin(days, made[0].recipe.holidays["holiday_DE"])
    origins = np.flatnonzero(holidays[rows + 10 :])[:40] + rows + 5
    origins = origins[origins + steps <= len(series)]

    forecasts = forecaster.forecast_origins(series, origins, steps)[..., 0]

    reached = origins[:, None] + np.arange(steps)
    errors = forecasts - series.values[reached, 0]
    assert len(origins) > 0
    assert np.abs(errors[holidays[reached]]).mean() < 1.0  # the effect is 6
    alone = forecaster.forecast(series.rows(0, int(origins[0])), steps)
    np.testing.assert_allclose(alone.mean[:, 0], forecasts[0], rtol=1e-5)
