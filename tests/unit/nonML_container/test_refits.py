"""Refits of Prophet, HOLT, LINEAR and the mean: a judged bundle in, one that is fitted on all rows out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flts.forecasting.linear.fit import fit_linear
from flts.forecasting.linear.model import path_residuals
from flts.forecasting.linear.rows import table_of
from flts.forecasting.recipe import RecipeSpec, measured_only, transform
from flts.forecasting.splits import tails
from flts.model_settings import ProphetSettings
from nonML_container.domain.fit import fit_prophet, predict
from nonML_container.handler import train_in_child
from tests.refits import assert_is_refit, refitted, stored_with_test
from tests.training_sets import Progress, adapters_of, made_series, touching_zero

SERIES = made_series(500)
TEST_ROWS = 100


def handler_of(stored: Any, settings: Any) -> Any:
    return train_in_child(settings, adapters_of(stored, settings))


def test_the_refitted_mean_is_the_mean_of_all_rows(load: Any, tmp_path: Path) -> None:
    stored = stored_with_test(tmp_path, SERIES, test_rows=TEST_ROWS)

    event, refit, judged = refitted(stored, handler_of(stored, load(MODEL_TYPE="BASELINE")), "MEAN")

    assert_is_refit(refit, judged, SERIES)
    assert event.bundle is not None
    assert event.bundle.object_key == event.judged.object_key.replace("bundle.json", "refit/bundle.json")
    np.testing.assert_allclose(refit.forecast(SERIES, 3).mean, np.tile(SERIES.values.mean(axis=0), (3, 1)), rtol=1e-9)
    before = SERIES.values[:360].mean(axis=0)  # the training rows before their calibration tail
    np.testing.assert_allclose(judged.forecast(SERIES, 1).mean[0], before, rtol=1e-9)


def test_linear_solves_the_choices_of_the_training_rows_on_all_rows(load: Any, tmp_path: Path) -> None:
    stored = stored_with_test(tmp_path, SERIES, test_rows=TEST_ROWS, horizon_steps=12)
    rows = len(SERIES) - TEST_ROWS

    _, refit, judged = refitted(stored, handler_of(stored, load(MODEL_TYPE="BASELINE")), "LINEAR")

    assert_is_refit(refit, judged, SERIES)
    split = tails(rows, stop_tail=0.1, calibration_tail=0.1)
    recipe, features = measured_only(stored.recipe, transform(stored.recipe, SERIES), rows)
    assert refit.recipe == recipe
    table, _ = table_of(features, fit_stop=split.fit_stop)
    fit = fit_linear(table, horizon=12, fit_stop=split.fit_stop, stop_stop=split.stop_stop)
    origins, errors = path_residuals(fit.model, table, first=rows, stop=len(SERIES), most=50, whole=True)
    forecasts = refit.forecast_origins(SERIES, origins, 12)
    actual = SERIES.values[origins[:, None] + np.arange(12)]
    np.testing.assert_allclose((actual - forecasts) / recipe.scales_of_targets, errors, atol=1e-4)
    assert np.abs(judged.forecast_origins(SERIES, origins, 12) - forecasts).max() > 0.01


def test_prophet_is_fitted_on_all_rows(load: Any, tmp_path: Path) -> None:
    stored = stored_with_test(tmp_path, SERIES, test_rows=TEST_ROWS)

    _, refit, judged = refitted(stored, handler_of(stored, load()), "PROPHET")

    assert_is_refit(refit, judged, SERIES)
    forecast = refit.forecast(SERIES, 20)
    for column, values in enumerate(SERIES.values.T):
        model = fit_prophet(SERIES.times, values, ProphetSettings(), "exact")
        assert forecast.mean[:, column] == pytest.approx(predict(model, forecast.times), rel=1e-6)


@pytest.mark.parametrize(("kind", "model_type"), [("PROPHET", "PROPHET"), ("BASELINE", "THETA")])
def test_a_direct_model_keeps_its_choices_and_is_fitted_on_all_rows(
    load: Any, tmp_path: Path, kind: str, model_type: str
) -> None:
    stored = stored_with_test(tmp_path, SERIES, test_rows=TEST_ROWS, horizon_steps=12)

    _, refit, judged = refitted(stored, handler_of(stored, load(MODEL_TYPE=kind)), model_type)

    assert_is_refit(refit, judged, SERIES)
    shapes = [(one.bundle.input_kind, one.bundle.inputs, one.bundle.rows_required) for one in (refit, judged)]
    assert shapes[0] == shapes[1]
    assert shapes[0][0] == "direct"
    difference = refit.forecast(SERIES, 12).mean - judged.forecast(SERIES, 12).mean
    assert 0 < (np.abs(difference) / SERIES.values.std(axis=0)).max() < 1


def test_holt_uses_all_rows(load: Any, tmp_path: Path) -> None:
    stored = stored_with_test(tmp_path, SERIES, test_rows=TEST_ROWS)

    _, refit, judged = refitted(stored, handler_of(stored, load(MODEL_TYPE="HOLT")), "HOLT")

    assert_is_refit(refit, judged, SERIES)
    assert np.abs(refit.forecast(SERIES, 5).mean - judged.forecast(SERIES, 5).mean).max() > 0


@pytest.mark.parametrize(("kind", "model_type"), [("PROPHET", "PROPHET"), ("BASELINE", "LINEAR")])
def test_a_refit_has_the_limits_of_all_rows_and_the_point_of_the_judged_model(
    load: Any, tmp_path: Path, kind: str, model_type: str
) -> None:
    series = touching_zero(500)
    series.values[450, 0] = -1.0  # a test row
    stored = stored_with_test(tmp_path, series, test_rows=TEST_ROWS, settings={"POINT": "median"})

    _, refit, judged = refitted(stored, handler_of(stored, load(MODEL_TYPE=kind)), model_type)

    assert_is_refit(refit, judged, series)
    assert (dict(judged.bundle.limits), dict(refit.bundle.limits)) == ({"load": (0.0, None)}, {})
    assert refit.bundle.point == "median"


def test_the_same_rows_give_the_same_bytes_and_progress_is_that_of_the_stage_refit(load: Any, tmp_path: Path) -> None:
    digests, progress = set(), Progress()
    for name in ("a", "b"):
        stored = stored_with_test(tmp_path / name, SERIES, test_rows=TEST_ROWS, spec=RecipeSpec(lags_enable=True))
        event, _, _ = refitted(stored, handler_of(stored, load(MODEL_TYPE="BASELINE")), "LINEAR", progress)
        assert event.bundle is not None
        digests.add(event.bundle.sha256)

    assert len(digests) == 1
    assert {said.stage for said in progress.said} == {"refit"}
