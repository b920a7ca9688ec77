"""Make the bundle of a combination: one direct model that returns the weighted sum of its members' forecasts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from flts.bundle.arrays import INTERVALS, PROBE
from flts.bundle.format import Bundle
from flts.bundle.model import BundleModel
from flts.bundle.tensors import OUTPUT, signature_of
from flts.errors import RejectedError
from flts.forecasting.direct import DIRECT_INPUTS, FUTURE, PAST, PLACES, DirectInputs, can_continue
from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.intervals import Intervals
from flts.forecasting.limits import Limits
from flts.forecasting.quantiles import Point
from flts.forecasting.recipe import Features, raw_rows
from flts.forecasting.rolling import Inputs
from flts.forecasting.series import FloatArray
from flts.forecasting.windows import target_rows
from flts.training.bundling import Identity, check_export
from flts.training.combined_graph import Member, add_members, graph_of
from flts.training.onnx_file import GraphBuilder, to_bytes

COMBINATION_VERSION = 2
"""Version; a change of the code that makes another bundle of the same members raises it. Part of train_hash."""
CHECK_WINDOWS, PROBE_WINDOWS = 8, 2
"""Windows of the training rows on which the model is compared with its members, and those of them in the bundle."""
MAX_SEASONS = 3
"""Seasons that a bundle may have."""


@dataclass(frozen=True, slots=True, eq=False)
class CombinedAnswer:
    """The parts of a combination's bundle that are not its members'."""

    intervals: Intervals | None
    limits: Mapping[str, Limits]
    point: Point
    metrics: Mapping[str, float | None]


def combinable(bundles: Sequence[Bundle]) -> list[int]:
    """Return the positions of the bundles whose models can be combined.

    They are direct models of the same horizon and targets, and read columns that the one with the most columns reads,
    scaled alike. The seasons of all of them are at most `MAX_SEASONS`.
    """
    direct = [at for at, bundle in enumerate(bundles) if bundle.input_kind == "direct"]
    if not direct:
        return []
    base = _widest([bundles[at] for at in direct])
    found: list[int] = []
    seasons: set[int] = set()
    for at in direct:
        bundle = bundles[at]
        together = seasons | set(bundle.seasons)
        if _fits(bundle, base) and len(together) <= MAX_SEASONS:
            seasons = together
            found.append(at)
    return found


def make_combination(
    members: Sequence[tuple[Bundle, bytes]],
    weights: FloatArray,
    answer: CombinedAnswer,
    identity: Identity,
    *,
    recipe: FittedRecipe,
    features: Features,
    threads: int,
) -> tuple[Bundle, bytes]:
    """Return the bundle of a combination, and its model file, which was checked to repeat the sum of the members.

    Parameters
    ----------
    members : sequence of bundle and model file
        `combinable` with each other.
    weights : (k, H, m)
        Of each member, step and varying target; a member whose weights are all zero is left out.
    answer : CombinedAnswer
    identity : Identity
    recipe, features
        The run's recipe, and the training rows made with it; they give the windows of the probe.
    threads : int
        Threads of the exported model while it is checked.

    Raises
    ------
    RejectedError
        ``other_operators`` if a member has ONNX operators of another version; ``export_mismatch`` if the model differs
        from the sum of its members by more than 1e-4; ``bad_bundle`` if a reader would not accept the bundle.
    """
    used = [(made, of_member) for made, of_member in zip(members, weights, strict=True) if of_member.any()]
    bundles = [bundle for (bundle, _), _ in used]
    base = _widest(bundles)
    length = max(bundle.input_seq_len for bundle in bundles)
    horizon = base.horizon_steps
    inputs = tuple(name for name in DIRECT_INPUTS if any(name in bundle.inputs for bundle in bundles))
    seasons = tuple(sorted({season for bundle in bundles for season in bundle.seasons}))
    graph = GraphBuilder()
    nodes = []
    for (bundle, model_bytes), of_member in used:
        found = graph_of(model_bytes)
        if found is None:
            msg = f"the operators of {bundle.model_type} have another version than those of a combination"
            raise RejectedError(msg, code="other_operators", field=bundle.model_type)
        nodes.append(Member(bundle, found, of_member))
    output = add_members(graph, nodes, columns=base.recipe.columns, seasons=seasons, rows=length)
    source = DirectInputs(base.recipe, inputs, seasons, length, horizon)
    given = _windows(source, recipe, features)
    answers = _summed(used, given, base.recipe.columns, seasons, threads)
    for name, values in {**given, OUTPUT: answers}.items():
        graph.array(f"{PROBE}{name}", values[:PROBE_WINDOWS])
    if answer.intervals is not None and answer.intervals.values is not None:
        graph.array(INTERVALS, answer.intervals.values)
    untils = [bundle.fitted_until for bundle in bundles]
    bundle = Bundle(
        **asdict(identity),
        input_kind="direct",
        recipe=base.recipe,
        input_seq_len=length,
        output_seq_len=horizon,
        rows_required=length,
        max_horizon_steps=None if can_continue(base.recipe, inputs) else horizon,
        targets=base.targets,
        intervals=answer.intervals,
        intervals_source=None if answer.intervals is None else "calibration_tail",
        model_sha256="",
        model_size=0,
        probe=None,
        metrics=dict(answer.metrics),
        inputs=inputs,
        seasons=seasons if PLACES in inputs else (),
        fitted_until=max((until for until in untils if until is not None), default=None),
        future_columns=base.recipe.known_ahead if FUTURE in inputs else (),
        limits=answer.limits,
        point=answer.point,
        fit=bundles[0].fit,
    )
    model_bytes = to_bytes(graph.model(output, signature_of(bundle)))
    digest = hashlib.sha256(model_bytes).hexdigest()
    bundle = replace(bundle, model_sha256=digest, model_size=len(model_bytes))
    check_export(BundleModel(bundle, model_bytes, threads=threads), given, answers)
    return bundle, model_bytes


def _widest(bundles: Sequence[Bundle]) -> Bundle:
    """Return the first of the bundles with the most columns."""
    return max(bundles, key=lambda bundle: len(bundle.recipe.columns))


def _fits(bundle: Bundle, base: Bundle) -> bool:
    own, wide = bundle.recipe, base.recipe
    if (bundle.horizon_steps, bundle.targets) != (base.horizon_steps, base.targets) or own.constants != wide.constants:
        return False
    if FUTURE in bundle.inputs and own.known_ahead != wide.known_ahead:
        return False
    scaled = {name: (own.offset[at], own.scale[at], own.add) for at, name in enumerate(own.columns)}
    wider = {name: (wide.offset[at], wide.scale[at], wide.add) for at, name in enumerate(wide.columns)}
    return scaled.items() <= wider.items()


def _windows(source: DirectInputs, recipe: FittedRecipe, features: Features) -> Inputs:
    """Return the inputs of windows that are evenly spread over the training rows."""
    own = source.recipe
    length, horizon = source.input_seq_len, source.horizon_steps
    raw = raw_rows(recipe, features).select(own.columns).values
    scaled = (raw - own.offsets) / own.scales + own.add
    rows = target_rows(features.segments(), context_rows=length, first_row=length, last_row=len(features))
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, CHECK_WINDOWS).astype(np.int64))][:, None]
    ahead = np.minimum(chosen + np.arange(horizon), len(features) - 1)
    return source.start(
        scaled[chosen + np.arange(-length, 0)],
        features.times[chosen[:, 0] - 1],
        scaled[ahead[..., None], source.known_columns],
    ).inputs()


def _summed(
    used: Sequence[tuple[tuple[Bundle, bytes], FloatArray]],
    given: Inputs,
    columns: tuple[str, ...],
    seasons: tuple[int, ...],
    threads: int,
) -> FloatArray:
    """Return the weighted sum of the forecasts of the members' own files (b, H, m)."""
    total: FloatArray | None = None
    for (bundle, model_bytes), weights in used:
        rows = slice(-bundle.input_seq_len - bundle.horizon_steps, None)
        own = {name: given[name][:, rows] for name in bundle.inputs}
        if PAST in own:
            taken = [columns.index(name) for name in bundle.recipe.columns]
            own[PAST] = np.ascontiguousarray(given[PAST][:, -bundle.input_seq_len :, taken])
        if PLACES in own:
            own[PLACES] = np.ascontiguousarray(own[PLACES][..., [seasons.index(season) for season in bundle.seasons]])
        forecast = weights * BundleModel(bundle, model_bytes, threads=threads).run(own)
        total = forecast if total is None else total + forecast
    assert total is not None
    return total
