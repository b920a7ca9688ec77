"""The fitted Prophets of several targets as one ONNX graph in float64.

``t = (seconds - start) / span``; ``trend = k t + m + sum of delta * max(t - change, 0)``; each seasonality is a sum of
sines and cosines of ``2 pi i days / period``; ``yhat = y_scale * (trend * (1 + multiplicative) + additive) + floor``.
Regressors are inputs known ahead and part of ``additive``. The graph ends in the recipe's scaled units, which every
bundle returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from flts.bundle.tensors import OUTPUT, SECONDS_INPUT, Signature, Tensor
from flts.errors import RejectedError
from flts.forecasting.direct import FUTURE, PAST
from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.known_inputs import KnownInputs
from flts.training.holiday_graph import add_holidays
from flts.training.onnx_file import GraphBuilder

if TYPE_CHECKING:
    from prophet import Prophet

DAY_SECONDS = 86_400.0
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """The numbers of m fitted models, padded to common lengths with zeros."""

    start: Array
    """(m,) epoch seconds."""
    span: Array
    """(m,) seconds."""
    rate: Array
    offset: Array
    changes: Array
    """(s, m) times of the trend's changes."""
    deltas: Array
    """(s, m)."""
    frequencies: Array
    """(p,) radians per day; each has a sine and a cosine."""
    additive: Array
    """(2 p, m) weights of sines, then of cosines."""
    multiplicative: Array
    """(2 p, m)."""
    known: Array
    """(q, m) weights of the regressors."""
    known_offset: Array
    """(m,)."""
    y_scale: Array
    floor: Array


@dataclass(frozen=True, slots=True)
class PassShape:
    """Rows of a direct model's pass: L of the past and H steps, with the correction by the last residuals if given.

    Parameters
    ----------
    past : int
        L.
    steps : int
        H.
    means : (L, s), optional
        Means of the residuals of the past rows.
    correction : (m, s, H), optional
        Weights of these means in each step.
    """

    past: int
    steps: int
    means: Array | None = None
    correction: Array | None = None

    def corrections(self, residuals: Array) -> Array:
        """Return what is added to the steps, (b, H, m), for residuals of the past rows (b, L, m)."""
        assert self.means is not None
        assert self.correction is not None
        added: Array = (residuals.transpose(2, 0, 1) @ self.means @ self.correction).transpose(1, 2, 0)
        return added


def prophets_to_onnx(
    models: Sequence[Prophet], recipe: FittedRecipe, known: KnownInputs | None = None, shape: PassShape | None = None
) -> onnx.ModelProto:
    """Return the models of all varying targets, in their order, as one graph.

    Without a shape the graph takes times (batch,) and returns float64 (batch, m). With one it is that of a direct
    model: it takes ``seconds`` (batch, L + H), with a correction ``past`` (batch, L, c), with future columns ``future``
    (batch, L + H, f), and returns float32 (batch, H, m).

    Parameters
    ----------
    models : sequence of Prophet
    recipe : FittedRecipe
    known : KnownInputs, optional
        The regressors of the models, in their order.
    shape : PassShape, optional

    Raises
    ------
    RejectedError
        ``unsupported_model`` for parts that the graph does not have: Prophet's own holidays, other regressors,
        conditional seasonalities, growth that is not linear, sampled parameters.
    """
    stack = stack_models(models, regressors=0 if known is None else known.width)
    graph = GraphBuilder()
    if shape is None:
        return graph.timestamps_model(_forecasts(graph, stack, recipe, known, SECONDS_INPUT, ""), targets=len(models))
    # Past rows are forecast only for their residuals.
    first = shape.past if shape.correction is None else 0
    count = shape.past + shape.steps - first
    rows = graph.constant(np.arange(first, shape.past + shape.steps))
    times = graph.node("Reshape", [graph.node("Gather", [SECONDS_INPUT, rows], axis=1), graph.integers(-1)])
    inputs, future = [], ""
    if shape.correction is not None:
        inputs.append(Tensor(PAST, "float32", (shape.past, len(recipe.columns))))
    inputs.append(Tensor(SECONDS_INPUT, "int64", (shape.past + shape.steps,)))
    if known is not None and len(known.columns):
        inputs.append(Tensor(FUTURE, "float32", (shape.past + shape.steps, len(known.columns))))
        ahead = graph.node("Gather", [FUTURE, rows], axis=1)
        future = graph.node("Reshape", [ahead, graph.integers(-1, len(known.columns))])
    answer = _forecasts(graph, stack, recipe, known, times, future)
    by_row = graph.node("Reshape", [answer, graph.integers(-1, count, len(models))])
    if shape.correction is not None:
        by_row = _corrected(graph, by_row, recipe, shape)
    signature = Signature(tuple(inputs), Tensor(OUTPUT, "float32", (shape.steps, len(models))))
    return graph.model(graph.node("Cast", [by_row], to=TensorProto.FLOAT), signature)


def _corrected(graph: GraphBuilder, forecasts: str, recipe: FittedRecipe, shape: PassShape) -> str:
    """Return the steps (batch, H, m) of forecasts (batch, L + H, m) with `PassShape.corrections`."""
    assert shape.means is not None
    assert shape.correction is not None
    before, steps = (
        graph.node("Gather", [forecasts, graph.constant(rows)], axis=1)
        for rows in (np.arange(shape.past), shape.past + np.arange(shape.steps))
    )
    own = graph.node("Gather", [PAST, graph.constant(recipe.varying_columns)], axis=2)
    residuals = graph.node("Sub", [graph.node("Cast", [own], to=TensorProto.DOUBLE), before])
    by_target = graph.node("Transpose", [residuals], perm=[2, 0, 1])
    means = graph.node("MatMul", [by_target, graph.constant(shape.means)])
    correction = graph.node("MatMul", [means, graph.constant(shape.correction)])
    return graph.node("Add", [steps, graph.node("Transpose", [correction], perm=[1, 2, 0])])


def _forecasts(  # noqa: PLR0917 - the models with their two inputs
    graph: GraphBuilder, stack: Stack, recipe: FittedRecipe, known: KnownInputs | None, times: str, future: str
) -> str:
    """Return the scaled forecasts (n, m) at times (n,) with values of future columns (n, f)."""

    def row(values: Array) -> str:
        return graph.constant(values[None])

    time = graph.node("Cast", [times], to=TensorProto.DOUBLE)
    seconds = graph.node("Unsqueeze", [time, graph.integers(1)])
    t = graph.node("Div", [graph.node("Sub", [seconds, row(stack.start)]), row(stack.span)])
    forecast = graph.node("Add", [graph.node("Mul", [t, row(stack.rate)]), row(stack.offset)])
    since = graph.node("Sub", [graph.node("Unsqueeze", [t, graph.integers(1)]), row(stack.changes)])
    bends = graph.node("Mul", [graph.node("Max", [since, graph.constant(np.array(0.0))]), row(stack.deltas)])
    forecast = graph.node("Add", [forecast, graph.node("ReduceSum", [bends, graph.integers(1)], keepdims=0)])
    if len(stack.frequencies):
        days = graph.node("Div", [seconds, graph.constant(np.array(DAY_SECONDS))])
        angles = graph.node("Mul", [days, row(stack.frequencies)])
        terms = graph.node("Concat", [graph.node("Sin", [angles]), graph.node("Cos", [angles])], axis=1)
        if stack.multiplicative.any():
            factor = graph.node("MatMul", [terms, graph.constant(stack.multiplicative)])
            forecast = graph.node("Add", [forecast, graph.node("Mul", [forecast, factor])])
        if stack.additive.any():
            forecast = graph.node("Add", [forecast, graph.node("MatMul", [terms, graph.constant(stack.additive)])])
    if known is not None:
        inputs = [future] if future else []
        inputs += add_holidays(graph, times, known.holidays) if known.holidays is not None else []
        joined = graph.node("Cast", [graph.node("Concat", inputs, axis=1)], to=TensorProto.DOUBLE)
        effects = graph.node("MatMul", [joined, graph.constant(stack.known)])
        forecast = graph.node("Add", [forecast, graph.node("Add", [effects, row(stack.known_offset)])])
    # Two conversions follow: to raw units, y_scale * forecast + floor, and to the recipe's scale, (raw - offset) /
    # scale + add. They are combined into one product and one sum.
    offset, scale = recipe.offsets_of_targets, recipe.scales_of_targets
    forecast = graph.node("Mul", [forecast, row(stack.y_scale / scale)])
    return graph.node("Add", [forecast, row((stack.floor - offset) / scale + recipe.add)])


def stack_models(models: Sequence[Prophet], *, regressors: int = 0) -> Stack:
    """Return the numbers of fitted models with so many regressors; raises as `prophets_to_onnx`."""
    for model in models:
        _refuse_unsupported(model, regressors)
    waves = sorted(
        {
            (float(season["period"]), order)
            for model in models
            for season in model.seasonalities.values()
            for order in range(1, int(season["fourier_order"]) + 1)
        }
    )
    additive, multiplicative = (np.zeros((2 * len(waves), len(models))) for _ in range(2))
    known, shift = np.zeros((regressors, len(models))), np.zeros(len(models))
    changes = np.zeros((max(len(model.changepoints_t) for model in models), len(models)))
    deltas = np.zeros_like(changes)
    for column, model in enumerate(models):
        delta = np.ravel(model.params["delta"])
        changes[: len(delta), column], deltas[: len(delta), column] = model.changepoints_t, delta
        weights = np.ravel(model.params["beta"])
        position = 0
        for season in model.seasonalities.values():  # Prophet's columns, and so `weights`, have this order
            into = multiplicative if season["mode"] == "multiplicative" else additive
            for order in range(1, int(season["fourier_order"]) + 1):
                wave = waves.index((float(season["period"]), order))
                into[wave, column], into[len(waves) + wave, column] = weights[position : position + 2]
                position += 2
        for at, regressor in enumerate(model.extra_regressors.values()):  # after the seasonalities, in their order
            known[at, column] = weights[position + at] / regressor["std"]
            shift[column] -= known[at, column] * regressor["mu"]
    # Prophet's start has no time zone and is in UTC. pandas' timestamp() also treats it as UTC.
    starts = [model.start.timestamp() for model in models]
    floors = [float(getattr(model, "y_min", 0.0)) if model.scaling == "minmax" else 0.0 for model in models]
    return Stack(
        start=np.array(starts),
        span=np.array([model.t_scale.total_seconds() for model in models]),
        rate=np.array([float(np.ravel(model.params["k"])[0]) for model in models]),
        offset=np.array([float(np.ravel(model.params["m"])[0]) for model in models]),
        changes=changes,
        deltas=deltas,
        frequencies=np.array([2 * np.pi * order / period for period, order in waves]),
        additive=additive,
        multiplicative=multiplicative,
        known=known,
        known_offset=shift,
        y_scale=np.array([float(model.y_scale) for model in models]),
        floor=np.array(floors),
    )


def _refuse_unsupported(model: Prophet, regressors: int) -> None:
    if model.growth != "linear":
        _refuse(f"growth {model.growth}")
    if model.holidays is not None or model.country_holidays is not None or model.train_holiday_names is not None:
        _refuse("holidays")
    modes = [regressor["mode"] for regressor in model.extra_regressors.values()]
    if modes != ["additive"] * regressors:
        _refuse(f"regressors {', '.join(model.extra_regressors)}")
    for name, season in model.seasonalities.items():
        if season["condition_name"] is not None:
            _refuse(f"the condition of seasonality {name}")
    if np.size(model.params["k"]) != 1:
        _refuse("sampled parameters")


def _refuse(what: str) -> NoReturn:
    msg = f"the ONNX form of Prophet has no {what}"
    raise RejectedError(msg, code="unsupported_model")
