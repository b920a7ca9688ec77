from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from flts.errors import RejectedError, SeriesTooShortError
from flts.forecasting.grid import FixedGrid
from flts.forecasting.recipe import RecipeSpec, fit_recipe, transform
from flts.forecasting.series import Series
from flts.forecasting.splits import as_train, tails
from flts.model_settings import TrainingSettings
from flts.trainers import trainer_of
from flts.training.fitting import FittedModel, TrainingSet
from tests.training_sets import STEP, made_series, training_settings
from train_container.domain.losses import ABSOLUTE_WEIGHT, ScaledLoss, Scores
from train_container.domain.models import load_model
from train_container.domain.training import NeuralFitter


class Heard:
    """Keeps the reports of a training."""

    def __init__(self) -> None:
        self.epochs: list[tuple[int, int, float | None]] = []
        self.metrics: list[Mapping[str, float | None]] = []
        self.alive_calls = 0

    def alive(self, detail: str) -> None:
        self.alive_calls += bool(detail)

    def epoch_done(self, epoch: int, epochs: int, metrics: Mapping[str, float | None], *, loss: float | None) -> None:
        self.epochs.append((epoch, epochs, loss))
        self.metrics.append(metrics)


def training_set(series: Series, spec: RecipeSpec | None = None) -> TrainingSet:
    recipe = fit_recipe(as_train(series), spec or RecipeSpec())
    features = transform(recipe, series)
    return TrainingSet(features, recipe, tails(len(features), stop_tail=0.1, calibration_tail=0.1))


def fit(
    data: TrainingSet, settings: TrainingSettings, model_type: str = "GRU", heard: Heard | None = None
) -> FittedModel:
    return NeuralFitter(load_model(trainer_of(model_type)), threads=1).fit(data, settings, heard or Heard())


DATA = training_set(made_series(400))


@pytest.mark.parametrize("model_type", ["GRU", "LSTM"])
def test_the_same_rows_seed_and_settings_make_the_same_bytes_and_metrics(model_type: str) -> None:
    one, two = (fit(DATA, training_settings(), model_type) for _ in range(2))
    other = fit(DATA, training_settings(seed=1), model_type)

    assert one.model_bytes == two.model_bytes
    assert one.metrics == two.metrics
    assert other.model_bytes != one.model_bytes


def test_the_epoch_with_the_least_stopping_loss_is_shipped_and_what_is_logged_is_it() -> None:
    heard = Heard()

    fitted = fit(DATA, training_settings(epochs=8, learning_rate=0.05), heard=heard)

    losses = [loss for _, _, loss in heard.epochs]
    assert fitted.metrics["best_epoch"] == int(np.argmin(losses)) + 1
    assert fitted.metrics["val_loss"] == pytest.approx(min(losses), rel=1e-5)
    best = heard.metrics[int(np.argmin(losses))]
    assert fitted.metrics["val_rmse"] == pytest.approx(best["val_rmse"], rel=1e-5)
    assert set(best) == {f"{part}_{name}" for part in ("train", "val") for name in ("loss", "rmse", "mae")}
    assert heard.alive_calls == 8 * 2  # 8 epochs of 2 batches: 316 windows, at most 256 in a batch


def test_training_stops_when_the_stopping_tail_gets_no_better() -> None:
    heard, patient = Heard(), Heard()

    stopped = fit(DATA, training_settings(epochs=60, patience=2, learning_rate=0.3), heard=heard)
    fit(DATA, training_settings(epochs=12, patience=2, learning_rate=0.3, early_stopping=False), heard=patient)

    assert len(heard.epochs) < 60
    assert len(heard.epochs) == stopped.metrics["best_epoch"] + 2
    assert len(patient.epochs) == 12


def test_rows_of_the_calibration_tail_have_no_say_in_the_weights() -> None:
    values = DATA.features.values.copy()
    values[DATA.tails.stop_stop :] += 0.3
    changed = replace(DATA, features=replace(DATA.features, values=values))

    assert fit(changed, training_settings()).model_bytes == fit(DATA, training_settings()).model_bytes


def test_a_model_beats_persistence_on_rows_it_never_saw() -> None:
    rng = np.random.default_rng(3)
    values = np.zeros((1200, 1))
    for row in range(1, 1200):
        # The sign mostly alternates, so a forecast that repeats the last value is bad.
        values[row] = -0.8 * values[row - 1] + rng.normal()
    data = training_set(
        Series(made_series(1200).times, ("c0",), values, FixedGrid(STEP)), RecipeSpec(time_features_enable=False)
    )

    fitted = fit(data, training_settings(epochs=6, batch_size=64, learning_rate=0.02))

    rows = np.arange(data.tails.stop_stop, data.tails.n_rows)[: len(fitted.check_outputs)]
    scaled = data.features.values
    error, naive = np.abs(scaled[rows] - fitted.check_outputs[:, 0]), np.abs(scaled[rows] - scaled[rows - 1])
    assert error.mean() < 0.6 * naive.mean()


def test_a_target_that_never_moves_in_the_fit_rows_does_not_break_the_loss() -> None:
    series = made_series(300)
    values = series.values.copy()
    values[:260, 1] = 7.0
    fitted = fit(training_set(replace(series, values=values)), training_settings())

    assert all(value is not None and np.isfinite(value) for value in fitted.metrics.values())


def test_a_training_that_diverges_is_refused_and_says_what_to_change() -> None:
    data = replace(DATA, features=replace(DATA.features, values=DATA.features.values * 1e39))

    with pytest.raises(RejectedError, match="LEARNING_RATE") as refused:
        fit(data, training_settings())
    assert refused.value.code == "diverged"


def test_too_few_rows_for_a_window_are_refused() -> None:
    with pytest.raises(SeriesTooShortError, match="training needs at least 10 rows in one piece"):
        fit(training_set(made_series(6)), training_settings())


def test_one_row_in_each_tail_is_enough() -> None:
    fitted = fit(training_set(made_series(14)), training_settings(input_seq_len=10))

    assert len(fitted.check_outputs) >= 1


def test_the_loss_is_squared_and_a_little_absolute_error_in_deviations() -> None:
    targets = torch.tensor([[[0.0, 10.0]], [[2.0, 30.0]]])  # the columns have standard deviations 1 and 10
    loss = ScaledLoss(targets)

    value = loss(torch.tensor([[[1.0, 10.0]]]), torch.tensor([[[0.0, 30.0]]]))

    assert float(value) == pytest.approx((1 + 4) / 2 + ABSOLUTE_WEIGHT * (1 + 2) / 2)


def test_scores_of_batches_add_up_to_those_of_all_rows() -> None:
    torch.manual_seed(0)
    answer, expected = torch.randn(10, 2, 3), torch.randn(10, 2, 3)
    scores = Scores()
    for part in (slice(0, 4), slice(4, 10)):
        scores.add((answer[part] - expected[part]).square().mean(), answer[part], expected[part])

    error = (answer - expected).flatten(0, 1)
    named = scores.named("val_")
    assert named["val_loss"] == pytest.approx(float(error.square().mean()), rel=1e-6)
    assert named["val_rmse"] == pytest.approx(float(error.square().mean(0).sqrt().mean()), rel=1e-6)
    assert named["val_mae"] == pytest.approx(float(error.abs().mean()), rel=1e-6)
