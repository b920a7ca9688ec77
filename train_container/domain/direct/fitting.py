"""Fit a direct network on training rows: LINEAR, its correction and the segments, and the weights of all three.

LINEAR and both networks are fitted on the fit rows. The stopping tail selects the pass of each network and the weights
per block of steps, so that no weight is chosen on rows that LINEAR was fitted on. In the model LINEAR is solved again
on the rows before the calibration tail, whose residuals give the intervals and the weights of eval's combination.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from flts.bundle.format import MAX_PASS_STEPS
from flts.bundle.tensors import OUTPUT, NumberType, Signature
from flts.bundle.tensors import Tensor as TensorOf
from flts.errors import SeriesTooShortError
from flts.forecasting.direct import PLACES, DirectInputs
from flts.forecasting.linear.calendar import Calendar
from flts.forecasting.linear.choice import OWN_COLUMNS, LinearChoice, block_edges
from flts.forecasting.linear.fit import choose_linear, solve_linear
from flts.forecasting.linear.kinds import LONGEST_LAG
from flts.forecasting.linear.known import TakenOut
from flts.forecasting.linear.rows import table_of
from flts.forecasting.linear.table import NoLinearError
from flts.forecasting.recipe import measured_only
from flts.forecasting.series import FloatArray
from flts.training.fitting import FittedModel, Report, TrainingSet
from flts.training.residuals import calibrated_steps, error_metrics
from train_container.domain.direct.blend import Blend, choose_blend
from train_container.domain.direct.correction import Correction, CorrectionReads, CorrectionSamples
from train_container.domain.direct.graph import network_inputs, network_to_onnx
from train_container.domain.direct.model import DirectNetwork, corrected, segmented
from train_container.domain.direct.passes import Counted, Samples, train
from train_container.domain.direct.plan import Plan
from train_container.domain.direct.segments import SegmentReads, Segments, SegmentSamples
from train_container.domain.direct.table import NetworkTable, Paths, Units

DIRECT_VERSION = 1
"""Version; a change of the code that makes another model of the same rows raises it. Part of train_hash."""
LEAST_WINDOWS = 16
"""Windows of the fit rows that a network is trained on at least."""
MOST_CELLS = 16_000_000
"""Numbers of LINEAR's forecasts of the fit rows that are kept, 4 bytes each; longer horizons have fewer origins."""
HELD_WINDOWS, BLEND_WINDOWS, RESIDUAL_PATHS = 512, 256, 1_024
"""Origins of the stopping tail after each pass and for the weights, and of the calibration tail; neighbours have
similar errors."""
MOST_SERIES = 65_536
"""Windows of single targets in each of these at most, and so fewer origins of many targets."""
LEAST_UNIT = 1e-3
"""Least unit in deviations of the target; dividing by a smaller one would make a step dominate the loss."""
LINEAR_BYTES = 27 * 2**20
"""Bytes of LINEAR's weights at most; the ONNX file has at most 32 MiB, and networks of the default sizes need 2."""
CHECK_WINDOWS = 16
"""Windows of the training rows on which the ONNX file is compared with the network."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The choices of a fit, with which another fit on other rows repeats it.

    Parameters
    ----------
    correction, segments : int
        Passes; 0 for a form without weight.
    blend : Blend
    """

    correction: int
    segments: int
    blend: Blend

    @property
    def metrics(self) -> dict[str, float | None]:
        """The choices as metrics of a bundle."""
        passes = {"correction_passes": float(self.correction), "segments_passes": float(self.segments)}
        return passes | self.blend.metrics

    @classmethod
    def of(cls, metrics: Mapping[str, float | None], horizon: int) -> Found:
        """Return the choices in the metrics of a bundle.

        Raises
        ------
        KeyError
            If the bundle is not one of this fit and horizon.
        """
        edges = block_edges(horizon)
        correction, segments = (
            np.array([metrics[f"{form}_weight_to_{edge}"] or 0.0 for edge in edges[1:]])
            for form in ("correction", "segments")
        )
        return cls(
            int(metrics["correction_passes"] or 0),
            int(metrics["segments_passes"] or 0),
            Blend(edges, correction, segments),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Networks:
    """Both networks, in units of the rows that they were fitted on, and the choices; see `DirectNetwork`."""

    units: Units
    unit: Tensor
    correction: Correction | None
    correction_reads: CorrectionReads
    segments: Segments | None
    segment_reads: SegmentReads
    found: Found
    history: Sequence[Mapping[str, float | None]]


def fit_direct(data: TrainingSet, plan: Plan, report: Report) -> FittedModel:
    """Fit on the training rows; a refit fits all rows, with the passes and the weights of the judged network.

    Raises
    ------
    SeriesTooShortError
        If the rows are too few for LINEAR, which the networks need: their errors are measured in units of its errors.
    """
    recipe, features = measured_only(data.recipe, data.features)
    fit_stop, stop_stop = data.tails.fit_stop, data.tails.stop_stop
    table, calendar = table_of(features, fit_stop=fit_stop)
    source = TakenOut.of(table, recipe, features)
    fit_rows = NetworkTable.fitted(source, fit_stop)
    # A refit makes LINEAR's choice again, from the training rows.
    stop, found = stop_stop, None
    try:
        choice = choose_linear(
            fit_rows.rows,
            horizon=min(data.horizon or 1, MAX_PASS_STEPS),
            fit_stop=fit_stop,
            stop_stop=stop_stop,
            targets=tuple(recipe.varying_columns.tolist()),
            max_bytes=LINEAR_BYTES,
            alive=lambda: report.alive("LINEAR"),
        )
        if data.judged is not None:
            stop, found = len(features), Found.of(data.judged.metrics, choice.horizon)
            fit_rows, fit_stop, stop_stop = NetworkTable.fitted(source, stop), stop, stop
        networks = fit_networks(fit_rows, choice, plan, report, stop=fit_stop, tail_stop=stop_stop, found=found)
        rows = NetworkTable.at(source, stop, fit_rows.units)
        network = _with_linear(rows, choice, networks, calendar, stop)
    except NoLinearError as error:
        raise SeriesTooShortError(error.message) from error
    residuals, metrics = _errors(network, rows, data, recipe.scales_of_targets, stop)
    fitted = _fitted(network, rows, replace(data, recipe=recipe, features=features), stop)
    return replace(
        fitted,
        residuals=residuals,
        metrics=metrics | networks.found.metrics,
        history=tuple(networks.history),
    )


def fit_networks(
    table: NetworkTable,
    choice: LinearChoice,
    plan: Plan,
    report: Report,
    *,
    stop: int,
    tail_stop: int,
    found: Found | None = None,
) -> Networks:
    """Fit both networks on the rows before ``stop``, with LINEAR solved on the same rows.

    Parameters
    ----------
    table : NetworkTable
        In units of the rows before ``stop``.
    choice : LinearChoice
    plan : Plan
    report : Report
    stop, tail_stop : int
        End of the rows to fit on, and of the rows after them to choose on.
    found : Found, optional
        Repeat these passes and weights, and choose nothing.

    Raises
    ------
    NoLinearError
        As `solve_linear`.
    """
    linear = solve_linear(table.rows, choice, stop=stop)
    targets, horizon = len(choice.targets), choice.horizon
    seasons = table.rows.seasons
    lags = tuple(season for season in seasons if season <= min(LONGEST_LAG, linear.rows_required))
    correction_reads = CorrectionReads(max(1, min(plan.window, stop // 8)), lags)
    segment_reads = SegmentReads.of(horizon, seasons, stop)

    def paths(back: int, first: int, end: int, most: int) -> Paths:
        most = max(LEAST_WINDOWS, min(most, MOST_CELLS // (horizon * targets)))
        origins = table.origins(back=max(back, linear.rows_required), first=first, stop=end, most=most)
        return Paths.of(table, linear, origins, end)

    def held(back: int, most: int) -> Paths:
        return paths(back, stop, tail_stop, min(most, max(LEAST_WINDOWS, MOST_SERIES // targets)))

    fitted = paths(correction_reads.rows, 0, stop, stop)
    unit = _errors_of(fitted)
    forms: list[Samples] = []
    if table.rows.columns <= OWN_COLUMNS and (found is None or found.correction) and len(fitted) >= LEAST_WINDOWS:
        forms.append(CorrectionSamples(fitted, held(correction_reads.rows, HELD_WINDOWS), unit, plan, correction_reads))
    cut = paths(segment_reads.look_back, 0, stop, stop)
    if (found is None or found.segments) and len(cut) >= LEAST_WINDOWS:
        forms.append(SegmentSamples(cut, held(segment_reads.look_back, HELD_WINDOWS), unit, plan, segment_reads))
    asked = {} if found is None else {"correction": found.correction, "segments": found.segments}
    counted = Counted(
        report, sum(asked.get(form.name) or plan.passes_of(form.count, form.batch, form.least_steps) for form in forms)
    )
    passed = {form.name: train(form, plan, counted, passes=asked.get(form.name)) for form in forms}
    networks = {form.name: form.network for form in forms if passed[form.name].passes}
    correction, segments = networks.get("correction"), networks.get("segments")
    assert correction is None or isinstance(correction, Correction)
    assert segments is None or isinstance(segments, Segments)
    if found is None:
        tail = held(max(correction_reads.rows, segment_reads.look_back), BLEND_WINDOWS)
        blend = choose_blend(
            tail.linear,
            None if correction is None else corrected(correction, correction_reads, tail, unit.numpy()),
            None if segments is None else segmented(segments, segment_reads, tail),
            *tail.actual(tail.all_steps()),
            unit,
            plan.point,
        )
        correction = correction if blend.correction.any() else None
        segments = segments if blend.segments.any() else None
        found = Found(
            passed["correction"].passes if correction is not None else 0,
            passed["segments"].passes if segments is not None else 0,
            blend,
        )
    history = [metrics for each in passed.values() for metrics in each.history]
    return Networks(table.units, unit, correction, correction_reads, segments, segment_reads, found, history)


def _errors_of(paths: Paths) -> Tensor:
    """Return the root of LINEAR's mean squared error at each step, (H, k); a step without a value has that before."""
    sums, counts = torch.zeros(2, *paths.linear.shape[1:], dtype=torch.float64)
    for at in range(0, len(paths), HELD_WINDOWS):
        some = paths.some(slice(at, at + HELD_WINDOWS))
        actual, weight = some.actual(some.all_steps())
        sums += ((actual - some.linear).square() * weight).sum(dim=0)
        counts += weight.sum(dim=0)
    unit = (sums / counts.clamp(min=1)).sqrt().float()
    for step in range(1, len(unit)):
        unit[step] = torch.where(counts[step] > 0, unit[step], unit[step - 1])
    floored: Tensor = unit.clamp(min=LEAST_UNIT)
    return floored


def _with_linear(
    table: NetworkTable, choice: LinearChoice, networks: Networks, calendar: Calendar, stop: int
) -> DirectNetwork:
    """Return the networks on top of LINEAR solved on the rows before ``stop``."""
    return DirectNetwork(
        linear=solve_linear(table.rows, choice, stop=stop),
        effects=table.effects,
        calendar=calendar,
        places=len(table.rows.seasons),
        units=networks.units,
        unit=networks.unit.numpy(),
        blend=networks.found.blend,
        correction=networks.correction,
        correction_reads=networks.correction_reads,
        segments=networks.segments,
        segment_reads=networks.segment_reads,
    )


def _errors(
    network: DirectNetwork, table: NetworkTable, data: TrainingSet, to_raw: FloatArray, fitted_rows: int
) -> tuple[dict[int, FloatArray], dict[str, float | None]]:
    """Return the residuals of the calibration tail by steps, raw, (n, k) each; and the metrics.

    A refit has no rows that it was not fitted on, and so only metrics of those that it was fitted on.
    """
    tails, targets = data.tails, len(network.units.targets)
    compared = calibrated_steps(tails.calibration_rows, network.linear.horizon)
    at = np.array(compared) - 1
    most = min(RESIDUAL_PATHS, max(LEAST_WINDOWS, MOST_SERIES // targets))

    def residuals(first: int, stop: int) -> FloatArray:
        origins = table.origins(back=network.rows_required, first=first, stop=stop, most=most)
        paths = Paths.of(table, network.linear, origins, stop)
        actual, weight = paths.actual(paths.all_steps())
        scaled = actual.numpy() * network.units.target_scale + network.units.target_mean
        missing = scaled - network.forecasts(table, origins).numpy()
        found: FloatArray = to_raw * np.where(weight.numpy() > 0, missing, np.nan)[:, at]
        return found

    scales = data.recipe.scales_of_targets
    if data.judged is not None:
        return {}, error_metrics("train", residuals(0, fitted_rows) / scales)
    tail = residuals(tails.stop_stop, len(table.rows))
    metrics = error_metrics("train", residuals(0, tails.fit_stop) / scales) | error_metrics("val", tail / scales)
    return {step: tail[:, number] for number, step in enumerate(compared)}, metrics


def _fitted(network: DirectNetwork, table: NetworkTable, data: TrainingSet, fitted_rows: int) -> FittedModel:
    """Return the model file of a network with the inputs and forecasts that check it.

    Raises
    ------
    SeriesTooShortError
        If no training rows are long enough for a check.
    """
    features, recipe, length, horizon = data.features, data.recipe, network.rows_required, network.linear.horizon
    origins = table.origins(back=length, first=0, stop=len(features), most=CHECK_WINDOWS, ahead=horizon)
    if not len(origins):
        msg = (
            f"no {length + horizon:,} training rows, {length:,} to read and {horizon:,} to forecast, are without a gap"
        )
        raise SeriesTooShortError(msg)
    names = network_inputs(network)
    seasons = table.rows.seasons if PLACES in names else ()
    inputs = DirectInputs(recipe, names, seasons, length, horizon)
    ahead = origins[:, None] + np.arange(1, horizon + 1)
    given = inputs.start(
        features.values[origins[:, None] + np.arange(1 - length, 1)],
        features.times[origins],
        features.values[ahead[..., None], inputs.known_columns],
    ).inputs()
    answers = network.forecasts(table, origins).numpy().astype(np.float64)
    if network.effects is not None:
        known = features.values[ahead[..., None], network.effects.known.columns]
        answers += network.effects(known, features.grid.clock(features.times[ahead]))[..., network.units.targets]
    tensors = tuple(TensorOf(name, _number(values.dtype.name), values.shape[1:]) for name, values in given.items())
    signature = Signature(tensors, TensorOf(OUTPUT, "float32", answers.shape[1:]))
    return FittedModel(
        model_bytes=network_to_onnx(network, signature),
        input_kind="direct",
        check_inputs=given,
        check_outputs=answers,
        rows_required=length,
        fitted_rows=fitted_rows,
        metrics={},
        seasons=seasons,
        recipe=recipe,
    )


def _number(name: str) -> NumberType:
    return "int64" if name == "int64" else "float32"
