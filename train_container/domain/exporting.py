"""Export networks of ordinary layers with torch's own exporter, if their module writes no ONNX graph itself."""

from __future__ import annotations

import logging
import warnings

import onnx
import torch
from onnx import numpy_helper
from torch import nn

from flts.bundle.model import OUTPUT, WINDOW_INPUT
from train_container.domain.shape import Shape

OPSET = 18
"""The oldest version of the ONNX operators that torch's exporter writes."""
RECURRENT = {"GRU": (5,), "LSTM": (5, 6), "RNN": (5,)}
"""Positions of the initial states among the inputs of recurrent operators; a state without an input is zero."""


def exported(network: nn.Module, shape: Shape) -> onnx.ModelProto:
    """Return a network as ONNX, with the input ``window`` (batch, L, f) and the output ``forecast`` (batch, H, m).

    Recurrent layers that start from zero are supported. The reader of bundles (`flts.bundle.graph`) refuses other
    shapes that depend on the batch, and operators that it does not support.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # suppresses a warning about the missing torchvision
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns about torch's own deprecated functions
        program = torch.onnx.export(
            network.eval(),
            (torch.zeros(2, shape.window_steps, shape.features),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[WINDOW_INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _leave_out_zero_states(model.graph)
    _leave_out_unused(model.graph)
    _leave_out_remarks(model)
    _number_names(model.graph)
    return model


def _leave_out_zero_states(graph: onnx.GraphProto) -> None:
    # Torch exports an initial state of zeros whose shape depends on the batch. It is removed, because ONNX's operators
    # start from zero by default.
    makers = {name: node for node in graph.node for name in node.output}
    constants = {each.name: each for each in graph.initializer}

    def is_zero(name: str) -> bool:
        maker = makers.get(name)
        if maker is not None:
            return maker.op_type in {"Expand", "Unsqueeze", "Slice", "Identity"} and is_zero(maker.input[0])
        return name in constants and not numpy_helper.to_array(constants[name]).any()

    for node in graph.node:
        for place in RECURRENT.get(node.op_type, ()):
            if place < len(node.input) and is_zero(node.input[place]):
                node.input[place] = ""


def _leave_out_unused(graph: onnx.GraphProto) -> None:
    wanted = {each.name for each in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    constants = [each for each in graph.initializer if each.name in wanted]
    for field, values in (("node", kept[::-1]), ("initializer", constants)):
        copies = [type(each).FromString(each.SerializeToString()) for each in values]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)
    graph.ClearField("value_info")


def _leave_out_remarks(model: onnx.ModelProto) -> None:
    # The exporter records the source file and line of each node. They are removed, because the bytes would depend on
    # the machine.
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _number_names(graph: onnx.GraphProto) -> None:
    # The exporter numbers names across all networks of a process. The same network must give the same bytes, so the
    # names are numbered anew.
    made = [each.name for each in graph.initializer] + [name for node in graph.node for name in node.output if name]
    outside = {each.name for each in (*graph.input, *graph.output)}
    names = {name: f"v{number}" for number, name in enumerate(made) if name not in outside}
    for each in graph.initializer:
        each.name = names[each.name]
    for number, node in enumerate(graph.node):
        node.name = f"n{number}"
        for field in (node.input, node.output):
            field[:] = [names.get(name, name) for name in field]
