"""Make the bundle of LINEAR from the training rows: a direct model in format 2.

LINEAR chooses on the stopping tail. The intervals are those of expanding folds, or of the calibration tail where folds
are impossible. The model in the bundle is solved on all training rows with the same choices. A refit makes the choices
again, from the training rows, and solves the model on all rows.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from flts.bundle.arrays import INTERVALS, PROBE
from flts.bundle.format import MAX_PASS_STEPS, Bundle
from flts.bundle.model import BundleModel
from flts.bundle.tensors import OUTPUT, signature_of
from flts.contracts.events import TrainingData
from flts.errors import RejectedError
from flts.forecasting.direct import CLOCK, FUTURE, PAST, PLACES, SECONDS, DirectInputs, can_continue
from flts.forecasting.expanding import FoldResiduals, fold_intervals, independent_windows, windows_metric
from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.intervals import Intervals
from flts.forecasting.linear.calendar import Calendar
from flts.forecasting.linear.fit import choose_linear, solve_linear
from flts.forecasting.linear.known import TakenOut
from flts.forecasting.linear.model import LinearModel, path_residuals, spread
from flts.forecasting.linear.rows import table_of
from flts.forecasting.linear.table import LinearTable, Origins
from flts.forecasting.places import TURNS
from flts.forecasting.recipe import Features, measured_only
from flts.forecasting.rolling import Inputs
from flts.forecasting.series import FloatArray
from flts.observability.logs import get_logger
from flts.settings import WindowSettings
from flts.training.bundling import Identity, as_refit, check_export, identity_of, make_bundle, point_of
from flts.training.constant import constant_model
from flts.training.fitting import TrainingSet
from flts.training.folds import linear_folds_of
from flts.training.linear_graph import Solved, add_linear, linear_inputs
from flts.training.onnx_file import GraphBuilder, to_bytes
from flts.training.residuals import RESIDUAL_PATHS, judged_errors

LINEAR = "LINEAR"
LINEAR_VERSION = 4
"""Version; a change of the code that makes another model of the same rows raises it. Part of train_hash."""
CHECK_WINDOWS, PROBE_WINDOWS = 16, 2
"""Windows of the training rows on which the ONNX file is compared with the model, and those of them in the bundle."""

log = get_logger(__name__)


def linear_identity(event: TrainingData, settings: WindowSettings, horizon: int) -> Identity:
    """Return the names of LINEAR's bundle; raises as `identity_of`."""
    parts = {
        "horizon": horizon,
        "stop_tail": settings.stop_tail,
        "calibration_tail": settings.calibration_tail,
        "linear_version": LINEAR_VERSION,
        **settings.hashed_answer,
    }
    return identity_of(event, LINEAR, parts)


def make_linear(
    data: TrainingSet, identity: Identity, *, horizon: int, threads: int, alive: Callable[[], None]
) -> tuple[Bundle, bytes]:
    """Fit LINEAR on the training rows and return its bundle with the ONNX file.

    The same rows give the same bytes, as long as numpy's BLAS uses the same number of threads.

    Parameters
    ----------
    data : TrainingSet
        All training rows, or the rows of a refit.
    identity : Identity
        Names of the bundle.
    horizon : int
        Steps that the model forecasts.
    threads : int
        Threads of the exported model while it is checked.
    alive : callable
        Called often while the model is fitted.

    Raises
    ------
    NoLinearError
        If too few rows follow each other without a gap.
    RejectedError
        ``bad_setting`` for a horizon that no bundle can have; as `make_bundle`.
    """
    if not data.recipe.varying_targets:
        constant = constant_model(data)
        return make_bundle(constant, data, identity, threads=threads, alive=alive)
    if not 1 <= horizon <= MAX_PASS_STEPS:
        msg = f"LINEAR forecasts 1 to {MAX_PASS_STEPS:,} steps, not {horizon:,}"
        raise RejectedError(msg, code="bad_setting", field="HORIZON")
    fit_stop, stop_stop, rows = data.tails.fit_stop, data.tails.stop_stop, data.tails.n_rows
    recipe, features = measured_only(data.recipe, data.features, rows)
    prepared = _Prepared.of(recipe, features.first(rows), fit_stop=fit_stop)
    choice = choose_linear(
        prepared.effects.at(fit_stop)[0],
        horizon=horizon,
        fit_stop=fit_stop,
        stop_stop=stop_stop,
        targets=tuple(recipe.varying_columns.tolist()),
        alive=alive,
    )
    calibrated: tuple[Intervals | None, str | None]
    if data.judged is None:
        folds = linear_folds_of(data, horizon, alive, choice)
        table, _ = prepared.effects.at(stop_stop)
        judged = solve_linear(table, choice, stop=stop_stop, alive=alive)
        _, metrics = judged_errors(
            judged, table, data.tails, unit=recipe.scales_of_targets, scales=data.recipe.scales_of_targets
        )
        intervals, windows = _intervals(judged, table, recipe, data, folds)
        metrics |= windows_metric(windows)
        calibrated = intervals, "from_refit" if folds else "calibration_tail"
    else:
        prepared = _Prepared.of(recipe, features, fit_stop=fit_stop)
        calibrated, metrics = (data.judged.intervals, data.judged.intervals_source), {}
    table, effects = prepared.effects.at(len(features))
    solved = Solved(solve_linear(table, choice, stop=len(table), alive=alive), effects)
    return _bundled(prepared, solved, identity, calibrated, metrics, data, threads)


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """The training rows as LINEAR reads them."""

    recipe: FittedRecipe
    features: Features
    effects: TakenOut
    calendar: Calendar

    @classmethod
    def of(cls, recipe: FittedRecipe, features: Features, *, fit_stop: int) -> _Prepared:
        """Make the table; the calendar and the seasons are those that the fit rows can show."""
        table, calendar = table_of(features, fit_stop=fit_stop)
        return cls(recipe, features, TakenOut.of(table, recipe, features), calendar)

    def windows(self, model: LinearModel, source: DirectInputs) -> Inputs:
        """Return the inputs of windows that are evenly spread over the training rows."""
        length, values = model.rows_required, self.effects.whole.values
        possible = Origins.of(self.effects.whole).mask(None, back=length, after=0, ahead=0, stop=len(values))
        last = spread(np.flatnonzero(possible), 0, CHECK_WINDOWS)[:, None]
        ahead = np.minimum(last + np.arange(1, model.horizon + 1), len(values) - 1)
        return source.start(
            values[last + np.arange(1 - length, 1)],
            self.features.times[last[:, 0]],
            values[ahead[..., None], source.known_columns],
        ).inputs()

    def answers(self, solved: Solved, given: Inputs) -> FloatArray:
        """Return the model's own forecasts (b, H, k), without the ONNX file."""
        model, past = solved.model, given[PAST]
        length = past.shape[1]
        turns = given[CLOCK][:, length] if CLOCK in given else np.zeros((len(past), TURNS))
        places = given.get(PLACES, np.zeros((len(past), length + model.horizon, 0), dtype=np.int64))
        effect: FloatArray = np.zeros((1, length + model.horizon, past.shape[2]))
        if solved.effects is not None:
            rows = (len(past), length + model.horizon)
            future = given.get(FUTURE, np.zeros((*rows, 0))).astype(np.float64)
            effect = solved.effects(future, given.get(SECONDS, np.zeros(rows, dtype=np.int64)))
        rest = model(past - effect[:, :length], places, self.calendar(turns.astype(np.float64)))
        return rest.astype(np.float64) + effect[:, length:, model.targets]


def _intervals(
    model: LinearModel, table: LinearTable, recipe: FittedRecipe, data: TrainingSet, folds: Sequence[FoldResiduals]
) -> tuple[Intervals, int]:
    """Return the intervals of the folds, or of the calibration tail without any, and the forecasts behind them."""
    if not folds:
        tails = data.tails
        rows, tail = path_residuals(model, table, first=tails.stop_stop, stop=len(table), most=RESIDUAL_PATHS)
        folds = [FoldResiduals(0, rows, tail * recipe.scales_of_targets)]
    intervals = fold_intervals(folds)
    return intervals, independent_windows(folds, intervals.calibrated_steps or 1)


def _bundled(  # noqa: PLR0917 - all that one bundle is made of
    prepared: _Prepared,
    solved: Solved,
    identity: Identity,
    calibrated: tuple[Intervals | None, str | None],
    metrics: dict[str, float | None],
    data: TrainingSet,
    threads: int,
) -> tuple[Bundle, bytes]:
    recipe, length, horizon = prepared.recipe, solved.model.rows_required, solved.model.horizon
    intervals, source = calibrated
    inputs = linear_inputs(solved)
    seasons = prepared.effects.whole.seasons if PLACES in inputs else ()
    bundle = Bundle(
        **asdict(identity),
        input_kind="direct",
        recipe=recipe,
        input_seq_len=length,
        output_seq_len=horizon,
        rows_required=length,
        max_horizon_steps=None if can_continue(recipe, inputs) else horizon,
        targets=recipe.targets,
        intervals=intervals,
        intervals_source=source,
        model_sha256="",
        model_size=0,
        probe=None,
        metrics=metrics,
        inputs=inputs,
        seasons=seasons,
        fitted_until=int(prepared.features.times[-1]),
        future_columns=recipe.known_ahead,
        limits=data.limits,
        point=point_of(data, intervals),
    )
    if data.judged is not None:
        bundle = as_refit(bundle, data, data.judged)
    given = prepared.windows(solved.model, DirectInputs(recipe, inputs, seasons, length, horizon))
    answers = prepared.answers(solved, given)
    graph = GraphBuilder()
    output = add_linear(graph, solved, prepared.calendar)
    for name, values in {**given, OUTPUT: answers}.items():
        graph.array(f"{PROBE}{name}", values[:PROBE_WINDOWS])
    if intervals is not None and intervals.values is not None:
        graph.array(INTERVALS, intervals.values)
    model_bytes = to_bytes(graph.model(output, signature_of(bundle)))
    digest = hashlib.sha256(model_bytes).hexdigest()
    bundle = replace(bundle, model_sha256=digest, model_size=len(model_bytes))
    started = time.perf_counter()
    difference = check_export(BundleModel(bundle, model_bytes, threads=threads), given, answers)
    log.info(
        "bundle_checked",
        export_difference=difference,
        model_size=bundle.model_size,
        calibrated_steps=bundle.calibrated_steps,
        check_seconds=round(time.perf_counter() - started, 3),
    )
    return bundle, model_bytes
