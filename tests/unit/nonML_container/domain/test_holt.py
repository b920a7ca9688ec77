from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flts.errors import SeriesTooShortError
from flts.forecasting.grid import FixedGrid
from flts.forecasting.recipe import RecipeSpec, fit_recipe, scale_targets, transform
from flts.forecasting.series import FloatArray, Series
from flts.forecasting.splits import as_train, tails
from flts.settings import WindowSettings
from flts.training.fitting import FittedModel, TrainingSet
from nonML_container.bootstrap import build_service
from nonML_container.domain.models import holt
from tests.nonml_service import trained
from tests.training_sets import START, STEP, Progress, adapters_of, made_series, store_dataset


class Report:
    """Keeps the parameters of each fit."""

    def __init__(self) -> None:
        self.targets: list[Mapping[str, float | None]] = []

    def alive(self, detail: str) -> None:
        pass

    def epoch_done(self, epoch: int, epochs: int, metrics: Mapping[str, float | None], *, loss: float | None) -> None:
        assert (epoch, loss) == (len(self.targets) + 1, None)
        assert epoch <= epochs
        self.targets.append(metrics)

    def parameters(self) -> FloatArray:
        return np.array([[each[f"target_{name}"] for name in ("alpha", "beta", "phi")] for each in self.targets])

    def losses(self) -> list[float | None]:
        return [each["target_loss"] for each in self.targets]


def textbook(rows: FloatArray, parameters: FloatArray, steps: int) -> list[float]:
    """Forecast from one window of one column with the textbook's formulas."""
    alpha, beta, phi = parameters
    level, trend = rows[0], 0.0
    for y in rows[1:]:
        before = level
        level = alpha * y + (1 - alpha) * (level + phi * trend)
        trend = beta * (level - before) + (1 - beta) * phi * trend
    return [level + sum(phi**k for k in range(1, h + 1)) * trend for h in range(1, steps + 1)]


def training_set(series: Series, **recipe: Any) -> TrainingSet:
    fitted = fit_recipe(as_train(series), RecipeSpec(scaler="none", **recipe))
    features = transform(fitted, series)
    return TrainingSet(features, fitted, tails(len(features), stop_tail=0.1, calibration_tail=0.1))


def series_of(*columns: FloatArray) -> Series:
    values = np.stack(columns, axis=1)
    names = tuple(f"c{number}" for number in range(len(columns)))
    return Series(START + STEP * np.arange(len(values)), names, values, FixedGrid(STEP))


def fit(series: Series, **settings: Any) -> tuple[FittedModel, Report]:
    report = Report()
    return holt.fit(training_set(series, nans_threshold=1.0), WindowSettings(**settings), report), report


def noise(rows: int, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).normal(size=rows)


def generated(rows: int, *, alpha: float, beta: float, phi: float) -> FloatArray:
    """Return a series that these parameters generate; errors with standard deviation 1 drive level and trend."""
    values, level, trend = np.empty(rows), 0.0, 0.0
    for row, error in enumerate(noise(rows)):
        ahead = level + phi * trend
        values[row] = ahead + error
        level, trend = ahead + alpha * error, phi * trend + alpha * beta * error
    return values


PARAMETERS = np.array([[0.5, 0.5, 0.8], [0.05, 0.9, 0.98], [1.0, 0.0, 0.8], [0.9, 0.1, 0.95]])


def test_four_rows_come_out_as_worked_out_by_hand() -> None:
    # After each row the level is 10, 11, 11.2, 13.22 and the trend 0, 0.5, 0.3, 1.13. The damping 0.8 lets step h add
    # 0.8 + ... + 0.8^h times the last trend to the last level: 0.8, 1.44 and 1.952 times.
    values = np.array([[10.0], [12.0], [11.0], [15.0]])

    forecast = holt.forecast(values, np.array([4]), PARAMETERS[:1], rows=4, horizon_steps=3)

    assert forecast[0, :, 0] == pytest.approx([14.124, 14.8472, 15.42576])


def test_recursion_and_weights_are_the_textbooks_loop() -> None:
    values = 100 + np.cumsum(np.stack([noise(60, seed) for seed in range(len(PARAMETERS))], axis=1), axis=0)
    origins = np.array([20, 33, 60])
    expected = np.array(
        [
            [textbook(values[at - 20 : at, column], parameters, 5) for column, parameters in enumerate(PARAMETERS)]
            for at in origins
        ]
    ).swapaxes(1, 2)

    recursion = holt.forecast(values, origins, PARAMETERS, rows=20, horizon_steps=5)
    of_level, of_trend = holt.weights(PARAMETERS, 20)
    windows = values[origins[:, None] + np.arange(-20, 0)]
    level, trend = (np.einsum("blm,ml->bm", windows, of) for of in (of_level, of_trend))
    product = level[:, None] + trend[:, None] * holt.damping(PARAMETERS, 5).T

    assert recursion == pytest.approx(expected, rel=1e-12)
    assert product == pytest.approx(expected, rel=1e-12)


def test_the_parameters_err_less_than_any_on_a_grid_of_loops() -> None:
    values = generated(300, alpha=0.6, beta=0.3, phi=0.9)
    series = series_of(values)

    _, report = fit(series)

    stop = training_set(series).tails.fit_stop
    windows = [values[at - 120 : at + 1] for at in range(120, stop)]

    def loss(parameters: FloatArray) -> float:
        return float(np.mean([(rows[-1] - textbook(rows[:-1], parameters, 1)[0]) ** 2 for rows in windows]))

    [found] = report.parameters()
    least = min(
        loss(np.array([alpha, beta, phi]))
        for alpha in (0.4, 0.6, 0.8)
        for beta in (0.1, 0.3, 0.5)
        for phi in (0.8, 0.9)
    )
    assert report.losses()[0] == pytest.approx(loss(found), rel=1e-9)
    assert loss(found) < least


def test_the_parameters_of_a_generated_series_are_found_again() -> None:
    fast = generated(6000, alpha=0.7, beta=0.4, phi=0.9)
    slow = generated(6000, alpha=0.2, beta=0.1, phi=0.95)

    _, report = fit(series_of(fast, slow))

    (alpha, beta, phi), (other_alpha, _, _) = report.parameters()
    assert alpha == pytest.approx(0.7, abs=0.05)
    assert beta == pytest.approx(0.4, abs=0.1)
    assert phi == pytest.approx(0.9, abs=0.04)
    assert other_alpha == pytest.approx(0.2, abs=0.05)
    assert report.losses() == pytest.approx([1.0, 1.0], abs=0.1), "the errors that drove them had the variance 1"


def test_a_target_that_varies_after_the_fit_rows_only_is_repeated() -> None:
    late = np.where(np.arange(400) < 390, 1.0, 2.0)

    fitted, report = fit(series_of(late, noise(400)))

    assert report.parameters()[0].tolist() == holt.PERSISTENCE.tolist()
    assert report.losses()[0] == 0
    assert np.isfinite(fitted.check_outputs).all()


@pytest.mark.parametrize("rows", [14, 50, 200])
def test_a_short_series_gets_a_short_window(rows: int) -> None:
    fitted, _ = fit(series_of(noise(rows)))

    fit_rows = training_set(series_of(noise(rows))).tails.fit_stop
    assert fitted.window_steps <= fit_rows / 2
    assert fitted.rows_required == fitted.window_steps
    assert np.isfinite(fitted.check_outputs).all()


def test_a_window_is_no_longer_than_the_parameters_remember() -> None:
    walk, level = np.cumsum(noise(4000)), 0.05 * np.cumsum(noise(4000)) + noise(4000, seed=1)

    quick, _ = fit(series_of(walk))
    slow, report = fit(series_of(level), output_seq_len=6)

    assert quick.window_steps < 10
    assert 40 < slow.window_steps <= holt.LONGEST_WINDOW
    origins = np.arange(3000, 3200)
    ends = [
        holt.forecast(level[:, None], origins, report.parameters(), rows, 6)[:, -1]
        for rows in (slow.window_steps, 10 * holt.LONGEST_WINDOW)
    ]
    error = np.sqrt(report.losses()[0] or 0)
    assert np.sqrt(np.mean((ends[0] - ends[1]) ** 2)) < 2 * holt.START_TOLERANCE * error


def test_a_jump_over_a_gap_is_no_error() -> None:
    values = np.concatenate([noise(300), 1000 + noise(300, seed=1)])
    series = series_of(values)
    apart = replace(series, times=series.times + np.where(np.arange(600) < 300, 0, 100 * STEP))

    _, together = fit(series)
    _, cut = fit(apart)

    [loss], [joined] = cut.losses(), together.losses()
    assert loss is not None
    assert joined is not None
    assert loss < 1.2 < joined


def test_imputed_cells_are_not_scored() -> None:
    # A missing cell is filled with the last value. If it were scored, a forecast of the last value would look perfect.
    values = noise(3000)
    holes = np.where(np.arange(3000) % 4 == 0, values, np.nan)

    _, full = fit(series_of(values, values))
    _, with_holes = fit(series_of(holes, values))

    assert full.parameters()[0, 0] < 0.1
    assert with_holes.parameters()[0, 0] < 0.2
    assert with_holes.losses()[0] == pytest.approx(1.0, abs=0.2)
    assert with_holes.targets[1] == full.targets[1]


def test_both_tails_are_left_alone() -> None:
    values = noise(500)
    changed = np.where(np.arange(500) < 400, values, 50 * values)

    first, report = fit(series_of(values))
    second, other = fit(series_of(changed))

    assert report.targets == other.targets
    assert first.model_bytes == second.model_bytes
    assert first.metrics["train_rmse"] == second.metrics["train_rmse"]
    assert (first.metrics["val_rmse"] or 0) < (second.metrics["val_rmse"] or 0)


def test_a_target_without_observed_fit_rows_is_refused_by_name() -> None:
    values = np.where(np.arange(200) < 190, np.nan, noise(200))

    with pytest.raises(SeriesTooShortError, match="c1") as refused:
        fit(series_of(noise(200), values))
    assert refused.value.field == "c1"


@pytest.mark.parametrize("variables", [{"OUTPUT_SEQ_LEN": "1"}, {"OUTPUT_SEQ_LEN": "5"}])
def test_the_bundle_forecasts_as_the_textbook_does(load: Any, tmp_path: Path, variables: dict[str, str]) -> None:
    stored = store_dataset(tmp_path, made_series(1000))
    progress = Progress()

    event, forecaster = trained(stored, load(MODEL_TYPE="HOLT", **variables), progress)
    forecast = forecaster.forecast(stored.series, 5)

    data = TrainingSet(
        transform(stored.recipe, stored.series), stored.recipe, tails(1000, stop_tail=0.1, calibration_tail=0.1)
    )
    report = Report()
    holt.fit(data, WindowSettings(output_seq_len=int(variables["OUTPUT_SEQ_LEN"])), report)
    rows = scale_targets(stored.recipe, stored.series.values[-forecaster.rows_required :])
    scaled = [textbook(column, found, 5) for column, found in zip(rows.T, report.parameters(), strict=True)]
    expected = np.array(scaled).T
    assert scale_targets(stored.recipe, forecast.mean)[0] == pytest.approx(expected[0], rel=1e-4)
    # Steps after the first pass are less exact: the forecasts are appended to the window, which then starts later.
    assert scale_targets(stored.recipe, forecast.mean) == pytest.approx(expected, abs=0.01)
    assert event.model_type == "HOLT"
    assert forecaster.bundle.input_seq_len == forecaster.rows_required
    assert forecaster.max_horizon is None
    assert forecaster.bundle.intervals_source == "calibration_tail"
    assert event.metrics["val_rmse"] is not None
    assert [said.epoch for said in progress.said if getattr(said, "epoch", None)] == [1, 2, 3]
    assert {said.stage for said in progress.said} == {"nonml-holt"}


def test_lags_lengthen_what_a_request_must_bring_and_change_no_forecast(load: Any, tmp_path: Path) -> None:
    series = made_series(600)
    plain = store_dataset(tmp_path / "plain", series)
    lagged = store_dataset(tmp_path / "lagged", series, RecipeSpec(lags_enable=True, lags_n=3, lags_step=2))

    _, without = trained(plain, load(MODEL_TYPE="HOLT"))
    _, with_lags = trained(lagged, load(MODEL_TYPE="HOLT"))

    assert with_lags.rows_required == with_lags.bundle.input_seq_len + 6
    # The first six rows have no lags, so the fit with lags has six rows fewer and differs a little.
    spread = series.values.std(axis=0)
    assert with_lags.forecast(series, 3).mean / spread == pytest.approx(
        without.forecast(series, 3).mean / spread, abs=0.02
    )


def test_missing_and_constant_columns_are_no_hindrance(load: Any, tmp_path: Path) -> None:
    series = made_series(600)
    values = np.column_stack([series.values[:, :2], np.full(600, 3.0)])
    values[100:110, 0] = np.nan
    stored = store_dataset(tmp_path, replace(series, values=values))

    _, forecaster = trained(stored, load(MODEL_TYPE="HOLT"))

    forecast = forecaster.forecast(stored.series, 5)
    assert np.isfinite(forecast.mean).all()
    assert (forecast.mean[:, 2] == 3).all()


def test_the_same_rows_make_the_same_bundle(load: Any, tmp_path: Path) -> None:
    made = []
    for number in range(2):
        stored = store_dataset(tmp_path / str(number), made_series(300))
        event, forecaster = trained(stored, load(MODEL_TYPE="HOLT"))
        made.append((event.bundle, forecaster.bundle.to_json()))

    assert made[0] == made[1]


def test_the_service_is_a_group_of_its_own(load: Any, tmp_path: Path) -> None:
    settings = load(MODEL_TYPE="HOLT")

    service = build_service(settings, adapters_of(store_dataset(tmp_path, made_series(50)), settings))

    assert service.name == "nonml-holt"
