"""Make the bundle of THETA from the training rows: a direct model in format 2.

THETA chooses on the rows before the calibration tail. The model that is solved on these rows gives the residuals of the
intervals. The model in the bundle is solved on all training rows with the same choice. A refit makes the choice again,
from the training rows, and solves the model on all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from onnx import TensorProto

from flts.bundle.format import MAX_PASS_STEPS, Bundle
from flts.bundle.tensors import OUTPUT, Signature, Tensor
from flts.contracts.events import TrainingData
from flts.errors import RejectedError
from flts.forecasting.direct import PAST, PLACES, DirectInputs
from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.linear.model import spread
from flts.forecasting.linear.table import Origins
from flts.forecasting.recipe import Features, scale_targets, targets_only, unscale_targets
from flts.forecasting.rolling import Inputs
from flts.forecasting.series import FloatArray
from flts.forecasting.theta.fit import ThetaRows, choose_theta, solve_theta
from flts.forecasting.theta.model import Part, ThetaModel
from flts.forecasting.theta.rows import theta_rows
from flts.settings import WindowSettings
from flts.training.bundling import Identity, identity_of, make_bundle
from flts.training.constant import constant_model
from flts.training.fitting import FittedModel, TrainingSet
from flts.training.onnx_file import GraphBuilder, to_bytes
from flts.training.residuals import judged_errors

THETA = "THETA"
THETA_VERSION = 1
"""Version; a change of the code that makes another model of the same rows raises it. Part of train_hash."""
CHECK_WINDOWS = 16
"""Windows of the training rows on which the ONNX file is compared with the model."""


def theta_identity(event: TrainingData, settings: WindowSettings, horizon: int) -> Identity:
    """Return the names of THETA's bundle; raises as `identity_of`."""
    parts = {
        "horizon": horizon,
        "stop_tail": settings.stop_tail,
        "calibration_tail": settings.calibration_tail,
        "theta_version": THETA_VERSION,
        **settings.hashed_answer,
    }
    return identity_of(event, THETA, parts)


def make_theta(
    data: TrainingSet, identity: Identity, *, horizon: int, threads: int, alive: Callable[[], None]
) -> tuple[Bundle, bytes]:
    """Fit THETA on the training rows and return its bundle with the ONNX file; parameters as `make_linear`.

    Raises
    ------
    NoThetaError
        If the rows are too few.
    RejectedError
        ``bad_setting`` for a horizon that no bundle can have; as `make_bundle`.
    """
    if not data.recipe.varying_targets:
        return make_bundle(constant_model(data), data, identity, threads=threads, alive=alive)
    if not 1 <= horizon <= MAX_PASS_STEPS:
        msg = f"THETA forecasts 1 to {MAX_PASS_STEPS:,} steps, not {horizon:,}"
        raise RejectedError(msg, code="bad_setting", field="HORIZON")
    stop, trained = data.tails.stop_stop, data.tails.n_rows
    recipe, features = targets_only(data.recipe, data.features, trained)
    rows = theta_rows(recipe, features.first(trained), stop=stop)
    choice = choose_theta(rows, horizon=horizon, stop=stop, alive=alive)
    residuals: Mapping[int, FloatArray] | None = None
    metrics: Mapping[str, float | None] = {}
    if data.judged is None:
        residuals, metrics = judged_errors(
            solve_theta(rows, choice, stop=stop),
            rows.table,
            data.tails,
            unit=np.ones(rows.table.columns),
            scales=data.recipe.scales_of_targets,
        )
    else:
        rows = theta_rows(recipe, features, stop=stop)
    model = solve_theta(rows, choice, stop=len(features))
    given = _check_inputs(model, rows, recipe, features)
    past = unscale_targets(recipe, given[PAST][..., recipe.varying_columns].astype(np.float64))
    answers = scale_targets(recipe, model(past, given.get(PLACES, np.empty((0, 0, 0), dtype=np.int64))))
    fitted = FittedModel(
        model_bytes=_onnx(model, recipe, given),
        input_kind="direct",
        check_inputs=given,
        check_outputs=answers,
        metrics=metrics,
        rows_required=model.rows_required,
        fitted_rows=len(features),
        residuals=residuals,
        seasons=rows.table.seasons if PLACES in given else (),
        recipe=recipe,
    )
    return make_bundle(fitted, data, identity, threads=threads, alive=alive)


def _check_inputs(model: ThetaModel, rows: ThetaRows, recipe: FittedRecipe, features: Features) -> Inputs:
    """Return the inputs of windows that are evenly spread over the training rows."""
    length, seasonal = model.rows_required, any(part.profile is not None for part in model.parts)
    names = (PAST, PLACES) if seasonal else (PAST,)
    possible = Origins.of(rows.table).mask(None, back=length, after=0, ahead=0, stop=len(features))
    last = spread(np.flatnonzero(possible), 0, CHECK_WINDOWS)
    source = DirectInputs(recipe, names, rows.table.seasons if seasonal else (), length, model.horizon)
    return source.start(features.values[last[:, None] + np.arange(1 - length, 1)], features.times[last]).inputs()


def _onnx(model: ThetaModel, recipe: FittedRecipe, given: Inputs) -> bytes:
    """Return what `ThetaModel.__call__` does in doubles, between the recipe's scaled units, as an ONNX file.

    Per part the adjusted window is one MatMul.
    """
    graph = GraphBuilder()
    scale = graph.constant(recipe.scales_of_targets)
    offset = graph.constant(recipe.offsets_of_targets - recipe.add * recipe.scales_of_targets)
    own = graph.node("Gather", [PAST, graph.constant(recipe.varying_columns)], axis=2)
    double = graph.node("Cast", [own], to=TensorProto.DOUBLE)
    raw = graph.node("Add", [graph.node("Mul", [double, scale]), offset])
    forecasts = [_part(graph, part, raw, model) for part in model.parts]
    total = forecasts[0]
    for forecast in forecasts[1:]:
        total = graph.node("Add", [total, forecast])
    scaled = graph.node("Div", [graph.node("Sub", [total, offset]), scale])
    answer = graph.node("Cast", [scaled], to=TensorProto.FLOAT)
    inputs = [Tensor(PAST, "float32", given[PAST].shape[1:])]
    if PLACES in given:
        inputs.append(Tensor(PLACES, "int64", given[PLACES].shape[1:]))
    output = Tensor(OUTPUT, "float32", (model.horizon, len(model.targets)))
    return to_bytes(graph.model(answer, Signature(tuple(inputs), output)))


def _part(graph: GraphBuilder, part: Part, raw: str, model: ThetaModel) -> str:
    """Add a part's forecast (batch, H, k) in raw units; ``raw`` is the window (batch, L, k)."""
    rest, known = raw, None
    by_factor = part.adjustment.kind == "multiplicative"
    if part.profile is not None:
        of_season = graph.node("Gather", [PLACES, graph.constant(np.array(part.adjustment.season))], axis=2)
        place = graph.node("Min", [of_season, graph.integers(len(part.profile) - 1)])
        profile = graph.node("Gather", [graph.constant(part.profile), place], axis=0)
        before, known = (
            graph.node("Gather", [profile, graph.constant(positions)], axis=1)
            for positions in (np.arange(model.rows_required), model.rows_required + np.arange(model.horizon))
        )
        rest = graph.node("Div" if by_factor else "Sub", [raw, before])
    by_target = graph.node("Transpose", [rest], perm=[2, 0, 1])
    product = graph.node("MatMul", [by_target, graph.constant(part.weights)])
    summed = graph.node("Add", [product, graph.constant(part.bias[:, None])])
    forecast = graph.node("Transpose", [summed], perm=[1, 2, 0])
    if known is None:
        return forecast
    if by_factor:
        return graph.node("Mul", [forecast, known])
    return graph.node("Add", [forecast, graph.node("Mul", [known, graph.constant(part.share)])])
