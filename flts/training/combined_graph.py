"""Several direct models as the ONNX graph of one, which returns the weighted sum of their forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from flts.bundle.format import Bundle
from flts.bundle.tensors import OUTPUT
from flts.forecasting.direct import DIRECT_INPUTS, PAST, PLACES
from flts.forecasting.series import FloatArray
from flts.training.onnx_file import OPSET, GraphBuilder


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A direct model of a combination."""

    bundle: Bundle
    graph: onnx.GraphProto
    weights: FloatArray
    """(H, m) weights of its forecasts."""


def graph_of(model_bytes: bytes) -> onnx.GraphProto | None:
    """Return the graph of a model file; None if it has operators of another version than the combination's."""
    model = onnx.load_model_from_string(model_bytes)
    return model.graph if [one.version for one in model.opset_import] == [OPSET] else None


def add_members(
    graph: GraphBuilder, members: Sequence[Member], *, columns: tuple[str, ...], seasons: tuple[int, ...], rows: int
) -> str:
    """Add the graphs of direct models; return the name of the weighted sum of their forecasts (batch, H, m).

    A member reads the last rows of the inputs, its own columns of ``past`` and its own seasons of ``places``.

    Parameters
    ----------
    graph : GraphBuilder
    members : sequence of Member
        All with the same horizon and the same varying targets.
    columns, seasons : tuple
        Columns of ``past`` and seasons of ``places``, which contain those of each member.
    rows : int
        Rows of ``past``, at least those of each member.
    """
    terms = []
    for member in members:
        taken = {name: _own_rows(graph, member.bundle, name, rows) for name in member.bundle.inputs}
        if PAST in taken:
            taken[PAST] = _chosen(graph, taken[PAST], columns, member.bundle.recipe.columns)
        if PLACES in taken:
            taken[PLACES] = _chosen(graph, taken[PLACES], seasons, member.bundle.seasons)
        forecast = graph.include(member.graph, taken, OUTPUT)
        terms.append(graph.node("Mul", [forecast, graph.constant(member.weights.astype(np.float32))]))
    return terms[0] if len(terms) == 1 else graph.node("Sum", terms)


def _own_rows(graph: GraphBuilder, bundle: Bundle, name: str, rows: int) -> str:
    """Return the rows of an input from the first one that a member reads."""
    assert name in DIRECT_INPUTS
    skipped = rows - bundle.input_seq_len
    if skipped == 0:
        return name
    # The last rows of `past` are those of the window, and the last rows of the other inputs are the forecast steps.
    end = rows if name == PAST else rows + bundle.horizon_steps
    return graph.node("Slice", [name, graph.integers(skipped), graph.integers(end), graph.integers(1)])


def _chosen(graph: GraphBuilder, value: str, given: tuple[object, ...], own: tuple[object, ...]) -> str:
    if given == own:
        return value
    return graph.node("Gather", [value, graph.integers(*map(given.index, own))], axis=2)
