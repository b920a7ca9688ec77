"""A direct network as one ONNX graph: LINEAR, its correction, the segments and their weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from flts.bundle.tensors import Signature
from flts.forecasting.direct import CLOCK, DIRECT_INPUTS, PLACES
from flts.forecasting.series import IntArray
from flts.forecasting.windows import Float32Array
from flts.training.linear_graph import LinearNodes, Solved, linear_inputs
from flts.training.onnx_file import GraphBuilder, to_bytes
from train_container.domain.direct.correction import Correction, CorrectionReads, step_features
from train_container.domain.direct.model import DirectNetwork
from train_container.domain.direct.segments import SegmentReads, Segments
from train_container.domain.models.recurrent import add_layers


def network_inputs(network: DirectNetwork) -> tuple[str, ...]:
    """Return the names of the inputs of a network's graph, of `flts.forecasting.direct.DIRECT_INPUTS`."""
    needed = {*linear_inputs(Solved(network.linear, network.effects))}
    if network.correction is not None or network.segments is not None:
        needed |= {PLACES} if network.units.profile is not None else set()
        needed |= {CLOCK} if network.calendar.width else set()
    return tuple(name for name in DIRECT_INPUTS if name in needed)


def network_to_onnx(network: DirectNetwork, signature: Signature) -> bytes:
    """Return a network as an ONNX file that takes and returns the tensors of a signature."""
    graph = GraphBuilder()
    nodes = LinearNodes(graph, Solved(network.linear, network.effects), network.calendar, rows=network.rows_required)
    answer = nodes.forecast()
    if network.correction is not None or network.segments is not None:
        answer = _Nodes(network, nodes).blended(answer)
    return to_bytes(graph.model(nodes.with_effects(answer), signature))


class _Nodes:
    """The nodes of the forms; each value has the shape that its docstring names, without the batch."""

    def __init__(self, network: DirectNetwork, linear: LinearNodes) -> None:
        self.network, self.linear, self.graph = network, linear, linear.graph
        self.units = units = network.units
        self.horizon, self.rows = network.linear.horizon, network.rows_required
        graph = self.graph
        centred = graph.node("Sub", [linear.past, graph.constant(units.mean)])
        self.z = graph.node("Div", [centred, graph.constant(units.scale)])
        self.own = graph.node("Gather", [self.z, graph.constant(units.targets)], axis=2)
        self.calendar = linear.calendar_of(CLOCK) if network.calendar.width else None
        self.known = None
        if linear.known is not None:
            known = graph.node("Sub", [linear.known, graph.constant(units.known_mean)])
            self.known = graph.node("Div", [known, graph.constant(units.known_scale)])
        self.profile = None
        if units.profile is not None:
            of_season = graph.node("Gather", [PLACES, graph.constant(np.array(network.places - 1))], axis=2)
            place = graph.node("Min", [of_season, graph.integers(len(units.profile) - 1)])
            self.profile = graph.node("Gather", [graph.constant(units.profile), place], axis=0)

    def blended(self, forecast: str) -> str:
        """Return the forecast of all forms, (H, k), from LINEAR's."""
        graph, units, network = self.graph, self.units, self.network
        centred = graph.node("Sub", [forecast, graph.constant(units.target_mean)])
        linear = graph.node("Div", [centred, graph.constant(units.target_scale)])
        of_correction, of_segments = (each.astype(np.float32)[:, None] for each in network.blend.by_step)
        answer = linear
        if network.correction is not None:
            correction = self._correction(network.correction, network.correction_reads, linear)
            share = graph.constant(of_correction * network.unit)
            answer = graph.node("Add", [answer, graph.node("Mul", [correction, share])])
        if network.segments is not None:
            missing = graph.node("Sub", [self._segments(network.segments, network.segment_reads), linear])
            answer = graph.node("Add", [answer, graph.node("Mul", [missing, graph.constant(of_segments)])])
        scaled = graph.node("Mul", [answer, graph.constant(units.target_scale)])
        return graph.node("Add", [scaled, graph.constant(units.target_mean)])

    def _correction(self, module: Correction, reads: CorrectionReads, linear: str) -> str:
        """Return the correction in units of LINEAR's error, (H, k)."""
        graph = self.graph
        past, ahead = np.arange(self.rows - reads.window, self.rows), self.rows + np.arange(self.horizon)
        rows, known = [self._rows_of(self.z, past)], [linear]
        if self.calendar is not None:
            rows.append(self._rows_of(self.calendar, past))
            known.insert(0, self._rows_of(self.calendar, ahead))
        if self.profile is not None:
            rows.append(graph.node("Sub", [self._rows_of(self.own, past), self._rows_of(self.profile, past)]))
            known.append(self._rows_of(self.profile, ahead))
        known += [self._rows_of(self.own, self.rows - lag + np.arange(self.horizon) % lag) for lag in reads.lags]
        if self.known is not None:
            known.append(self._rows_of(self.known, ahead))
        windows = graph.node("Transpose", [graph.node("Concat", rows, axis=2)], perm=[1, 0, 2])
        state = add_layers(graph, module.encoder, windows)[-1][0]
        of_state = graph.node("Unsqueeze", [self._linear(module.of_state, state), graph.integers(1)])
        steps = step_features(torch.arange(1, self.horizon + 1, dtype=torch.float32)).numpy()
        weights = _array(module.of_known.weight).T
        joined = graph.node("Concat", known, axis=2)
        of_known = graph.node("MatMul", [joined, graph.constant(weights[steps.shape[1] :])])
        of_step = graph.constant(steps @ weights[: steps.shape[1]])
        wide = graph.node("Relu", [graph.node("Add", [graph.node("Add", [of_known, of_step]), of_state])])
        return self._linear(module.out, graph.node("Relu", [self._linear(module.middle, wide)]))

    def _segments(self, module: Segments, reads: SegmentReads) -> str:
        """Return the forecast of the segments, (H, k)."""
        graph, targets = self.graph, len(self.units.targets)
        count, hidden = len(reads.middles), module.cell.hidden_size
        past = np.arange(self.rows - reads.look_back, self.rows)
        rest = self._rows_of(self.own, past)
        last = self._rows_of(rest, np.array([reads.look_back - 1]))
        series = graph.node("Transpose", [graph.node("Sub", [rest, last])], perm=[0, 2, 1])
        cut = graph.node("Reshape", [series, graph.integers(-1, reads.look_back // reads.rows, reads.rows)])
        projected = graph.node("Relu", [self._linear(module.project, cut)])
        states = add_layers(graph, module.cell, graph.node("Transpose", [projected], perm=[1, 0, 2]))
        given = graph.constant(_array(module.target)[:, None] + _array(module.position))  # (k, J, hidden)
        known = self._of_future_segments(module, reads)
        if known is None:
            # Zeros of the shape of the last state, so that the sum has the batch.
            zeros = graph.node("Sub", [last, last])
            known = graph.node("Unsqueeze", [graph.node("Transpose", [zeros], perm=[0, 2, 1]), graph.integers(-1)])
            of_all = graph.node("Add", [given, known])
        else:
            of_all = graph.node("Add", [given, graph.node("Unsqueeze", [known, graph.integers(1)])])
        inputs = graph.node("Reshape", [of_all, graph.integers(1, -1, hidden)])
        repeat = graph.constant(np.zeros((1, count, 1), dtype=np.float32))

        def repeated(state: str) -> str:
            every = graph.node("Add", [graph.node("Unsqueeze", [state, graph.integers(1)]), repeat])
            return graph.node("Reshape", [every, graph.integers(1, -1, hidden)])

        starts = [[repeated(each) for each in of_layers] for of_layers in states]
        ahead = self._linear(module.out, add_layers(graph, module.cell, inputs, starts)[-1][0])
        by_target = graph.node("Reshape", [ahead, graph.integers(-1, targets, count * reads.ahead)])
        by_step = graph.node("Transpose", [by_target], perm=[0, 2, 1])
        return graph.node("Add", [self._rows_of(by_step, np.arange(self.horizon)), last])

    def _of_future_segments(self, module: Segments, reads: SegmentReads) -> str | None:
        """Return the part of the known inputs in each future segment's input, (J, hidden)."""
        if module.of_known is None:
            return None
        graph, weights = self.graph, _array(module.of_known.weight).T
        parts, width = [], self.network.calendar.width
        if self.calendar is not None:
            calendar = self._rows_of(self.calendar, self.rows - 1 + reads.middles)
            parts.append(graph.node("MatMul", [calendar, graph.constant(weights[:width])]))
        if self.known is not None:
            each = self._rows_of(self.known, self.rows - 1 + reads.steps.ravel())
            flat = graph.node("Reshape", [each, graph.integers(-1, len(reads.middles), len(weights) - width)])
            parts.append(graph.node("MatMul", [flat, graph.constant(weights[width:])]))
        return parts[0] if len(parts) == 1 else graph.node("Add", parts)

    def _linear(self, module: nn.Linear, values: str) -> str:
        graph = self.graph
        product = graph.node("MatMul", [values, graph.constant(np.ascontiguousarray(_array(module.weight).T))])
        return graph.node("Add", [product, graph.constant(_array(module.bias))])

    def _rows_of(self, values: str, rows: IntArray) -> str:
        return self.graph.node("Gather", [values, self.graph.constant(rows.astype(np.int64))], axis=1)


def _array(tensor: torch.Tensor) -> Float32Array:
    array: Float32Array = tensor.detach().numpy()
    return array
