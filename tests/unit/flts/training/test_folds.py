"""The intervals of a model without folds of its own: LINEAR's folds where its errors are like LINEAR's."""

from __future__ import annotations

import numpy as np
import pytest

from flts.bundle.format import Bundle
from flts.bundle.tensors import OUTPUT, Signature, Tensor
from flts.forecasting.borrowed import borrowed_folds
from flts.forecasting.direct import PAST
from flts.forecasting.expanding import fold_intervals
from flts.forecasting.recipe import RecipeSpec, fit_recipe, transform
from flts.forecasting.series import FloatArray, Series
from flts.forecasting.splits import as_train
from flts.settings import WindowSettings
from flts.training import dataset
from flts.training.bundling import Identity
from flts.training.fitting import FittedModel, TrainingSet
from flts.training.folds import linear_folds_of, make_with_folds, tail_residuals
from flts.training.onnx_file import GraphBuilder, to_bytes
from tests.direct_models import hourly_series

HORIZON, ROWS = 8, 1_200


def walk() -> Series:
    """Return a random walk, of which no model forecasts more than the last value."""
    series = hourly_series(ROWS)
    steps = np.random.default_rng(4).normal(size=series.values.shape)
    return Series(series.times, series.columns, 500 + steps.cumsum(axis=0), series.grid)


def set_of(series: Series) -> TrainingSet:
    recipe = fit_recipe(as_train(series), RecipeSpec(time_features_enable=False))
    return dataset.training_set(transform(recipe, series), recipe, WindowSettings())


def last_value(data: TrainingSet, *, fitted_rows: int = 0) -> FittedModel:
    """Return a direct model that reads one row and repeats it, with the residuals of its calibration tail."""
    columns, names = data.recipe.varying_columns, data.recipe.columns
    signature = Signature(
        (Tensor(PAST, "float32", (1, len(names))),), Tensor(OUTPUT, "float32", (HORIZON, len(columns)))
    )
    graph = GraphBuilder()
    targets = graph.node("Gather", [PAST, graph.constant(columns)], axis=2)
    output = graph.node("Gather", [targets, graph.constant(np.zeros(HORIZON, dtype=np.int64))], axis=1)
    past = data.features.values[-32:, None, : len(names)].astype(np.float32)
    raw = data.features.values[:, columns] * data.recipe.scales_of_targets + data.recipe.offsets_of_targets
    tail = np.arange(data.tails.stop_stop, len(raw))
    return FittedModel(
        model_bytes=to_bytes(graph.model(output, signature)),
        input_kind="direct",
        check_inputs={PAST: past},
        check_outputs=np.repeat(past[..., columns], HORIZON, axis=1).astype(np.float64),
        metrics={},
        rows_required=1,
        fitted_rows=fitted_rows,
        residuals={
            step: raw[tail[: len(tail) - step] + step - 1] - raw[tail[: len(tail) - step] - 1] for step in (1, 2, 5)
        },
    )


def made(data: TrainingSet, fitted: FittedModel) -> tuple[Bundle, bytes]:
    identity = Identity("made", "c" * 64, "GRU", "d" * 64)
    return make_with_folds(fitted, data, identity, horizon=HORIZON, threads=1, alive=lambda: None)


def test_a_model_with_linear_s_errors_has_the_intervals_of_linear_s_folds_in_its_own_size() -> None:
    data = set_of(walk())

    bundle, model_bytes = made(data, last_value(data))

    assert bundle.intervals is not None
    assert bundle.intervals.steps == (1, 2, 4, 8)
    folds = linear_folds_of(data, HORIZON, lambda: None)
    tails = tail_residuals((bundle, model_bytes), data, folds, threads=1)
    assert tails is not None
    own, linear = tails
    assert own.rows.min() >= data.tails.stop_stop
    borrowed = borrowed_folds(own.residuals, linear.residuals, folds)
    assert borrowed is not None
    np.testing.assert_array_equal(bundle.intervals.values, fold_intervals(borrowed).values)
    assert bundle.metrics["interval_windows"] >= 20  # type: ignore[operator]


def test_a_model_with_other_errors_keeps_the_intervals_of_its_tail() -> None:
    data = set_of(hourly_series(ROWS))  # a cycle, which the last value does not follow

    bundle, _ = made(data, last_value(data))

    assert bundle.intervals is not None
    assert bundle.intervals.steps == (1, 2, 5)
    assert "interval_windows" not in bundle.metrics


def test_a_model_that_was_fitted_on_the_tail_is_not_compared_there() -> None:
    data = set_of(walk())

    bundle, _ = made(data, last_value(data, fitted_rows=ROWS))

    assert bundle.intervals is not None
    assert bundle.intervals.steps == (1, 2, 5)


def test_the_residuals_of_the_tail_are_those_of_the_bundle_s_forecasts() -> None:
    series = walk()
    data = set_of(series)
    bundle, model_bytes = made(data, last_value(data))
    folds = linear_folds_of(data, HORIZON, lambda: None)

    tails = tail_residuals((bundle, model_bytes), data, folds, threads=1)

    assert tails is not None
    own, linear = tails
    assert linear.rows is own.rows
    row = int(own.rows[0])
    expected: FloatArray = series.values[row : row + HORIZON] - series.values[row - 1]
    assert own.residuals[0] == pytest.approx(expected, rel=1e-4, abs=1e-3)
    assert np.isnan(own.residuals[-1, 1:]).all()
    assert tail_residuals((bundle, model_bytes), data, [], threads=1) is None
