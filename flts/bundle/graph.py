"""Check an ONNX file before ONNX Runtime loads it: no external data, no foreign operators, only finite numbers.

ONNX Runtime would open files that a model names, and run all operators that it supports. The serving image does not
contain the package ``onnx``, so this module parses the few protobuf fields that matter. Their numbers are from
onnx.proto3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from flts.errors import RejectedError

ALLOWED_OPS = frozenset(
    """
    Abs Add And Cast Ceil Clip Concat Constant Conv Cos Div Dropout Elu Equal Erf Exp Flatten Floor GRU Gather Gelu Gemm
    Greater GreaterOrEqual HardSigmoid Identity LSTM LayerNormalization LeakyRelu Less LessOrEqual Log MatMul Max Min
    Mod Mul Neg Not Or Pow RNN Reciprocal ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape Round Shape Sigmoid Sign
    Sin Slice Softmax Softplus Split Sqrt Squeeze Sub Sum Tanh Transpose Unsqueeze Where
    """.split()  # noqa: SIM905 - 60 quoted words on 60 lines are harder to read
)
"""Operators of networks and closed forms; no inner graphs, no random numbers, no output of arbitrary size."""

SHAPING_OPS = frozenset(
    ("Reshape", "Slice", "Split", "Squeeze", "Unsqueeze", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")
)
"""Operators whose inputs after the first are shapes, positions or axes, which determine the size of the output."""

ARRAY_PREFIX = "bundle."
"""First characters of the names of initializers that are data of a bundle and no part of the model's arithmetic."""
MAX_NODES = 5_000
MAX_DIMENSIONS = 32
MAX_TENSOR_CELLS = 128 * 2**20
_DTYPES: dict[int, str] = {1: "<f4", 6: "<i4", 7: "<i8", 9: "?", 11: "<f8"}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BITS = 70
# Field numbers, by message.
_MODEL_GRAPH, _MODEL_OPSETS, _MODEL_CODE = 7, 8, {20, 25}  # fields 20, 25: training graphs, functions
_GRAPH_NODE, _GRAPH_TENSOR, _GRAPH_INPUT, _GRAPH_SPARSE = 1, 5, 11, 15
_INPUT_NAME, _NODE_INPUT, _NODE_OUTPUT = 1, 1, 2
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_FLOATS, _ATTRIBUTE_TENSORS = {2, 7}, {5, 10}
_ATTRIBUTE_OTHERS = {6, 11, 14, 15, 21, 22, 23}  # refused: graphs, types, references, sparse tensors
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14
_TENSOR_WORDS = {12, 14, 16}  # fields without numbers, which are ignored: documentation, location, metadata
_Field = tuple[int, int, int | memoryview]


def check_graph(model_bytes: bytes) -> dict[str, NDArray[Any]]:
    """Refuse a model that does more than arithmetic on finite numbers.

    Returns
    -------
    name -> array
        The initializers whose names begin with `ARRAY_PREFIX`, without the prefix: data of a bundle that no node uses.
        They are views of ``model_bytes``.

    Raises
    ------
    RejectedError
        ``bad_bundle`` with the reason: pickle or zip, external data, foreign operator domains, unknown operators,
        inner graphs, weights that are not finite, sizes that contradict the shapes, shapes that depend on the numbers
        in a request, a node that uses an array of the bundle.
    """
    if model_bytes[:2] in {b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"}:
        _refuse("the model is a zip or pickle, not ONNX")
    graph: memoryview | None = None
    for number, _, value in _fields(memoryview(model_bytes)):
        if number == _MODEL_GRAPH:
            if graph is not None:
                _refuse("the model holds two graphs")
            graph = _bytes(value)
        elif number == _MODEL_OPSETS:
            domain = "".join(_text(part) for inner, _, part in _fields(_bytes(value)) if inner == 1)
            if domain not in {"", "ai.onnx"}:
                _refuse(f"the model uses the operator domain {domain[:80]!r}")
        elif number in _MODEL_CODE:
            _refuse("the model brings functions or training graphs of its own")
    if graph is None:
        _refuse("the model holds no graph")
    return _check_nodes(graph)


def _check_nodes(graph: memoryview) -> dict[str, NDArray[Any]]:
    nodes = 0
    arrays: dict[str, NDArray[Any]] = {}
    # `given` has the names of all values that are computed from the numbers in a request. `_check_node` refuses a shape
    # that depends on such a value: the shape can be small while the model is tested, and have any size in a later
    # request.
    given = {
        _text(part)
        for number, _, value in _fields(graph)
        if number == _GRAPH_INPUT
        for inner, _, part in _fields(_bytes(value))
        if inner == _INPUT_NAME
    }
    for number, _, value in _fields(graph):
        if number == _GRAPH_NODE:
            nodes += 1
            if nodes > MAX_NODES:
                _refuse(f"the model has more than {MAX_NODES} nodes")
            _check_node(_bytes(value), given)
        elif number == _GRAPH_TENSOR:
            name, array = _check_tensor(_bytes(value))
            if name.startswith(ARRAY_PREFIX):
                if name in arrays:
                    _refuse(f"the model holds two arrays {name[:80]}")
                arrays[name] = array
        elif number == _GRAPH_SPARSE:
            _refuse("the model holds sparse tensors")
    return {name.removeprefix(ARRAY_PREFIX): array for name, array in arrays.items()}


def _check_node(node: memoryview, given: set[str]) -> None:
    operators = 0
    name = ""
    inputs: list[str] = []
    outputs: list[str] = []
    for number, _, value in _fields(node):
        if number == _NODE_OPERATOR:
            operators += 1
            name = _text(value)
            if name not in ALLOWED_OPS:
                _refuse(f"the model uses the operator {name[:80]!r}")
        elif number == _NODE_DOMAIN and _text(value) not in {"", "ai.onnx"}:
            _refuse(f"the model uses the operator domain {_text(value)[:80]!r}")
        elif number == _NODE_ATTRIBUTE:
            _check_attribute(_bytes(value))
        elif number in {_NODE_INPUT, _NODE_OUTPUT}:
            (inputs if number == _NODE_INPUT else outputs).append(_name_of_value(value))
    if operators != 1:
        _refuse("a node of the model names not one operator")
    if name in SHAPING_OPS and given.intersection(inputs[1:]):
        _refuse(f"the shape that a {name} of the model makes depends on the numbers in a request")
    if name != "Shape" and given.intersection(inputs):
        given.update(outputs)


def _name_of_value(value: int | memoryview) -> str:
    name = _text(value)
    if name.startswith(ARRAY_PREFIX):
        _refuse(f"a node of the model uses {name[:80]}, which is data of the bundle")
    return name


def _check_attribute(attribute: memoryview) -> None:
    for number, wire, value in _fields(attribute):
        if number in _ATTRIBUTE_TENSORS:
            _check_tensor(_bytes(value))
        elif number in _ATTRIBUTE_OTHERS:
            _refuse("a node of the model holds an inner graph, a type or a reference")
        elif number in _ATTRIBUTE_FLOATS:  # one float of 4 bytes, or a packed list of floats
            raw = int(value).to_bytes(4, "little") if wire == _FIXED32 else bytes(_bytes(value))
            if len(raw) % 4 or not np.isfinite(np.frombuffer(raw, "<f4")).all():
                _refuse("an attribute of the model is not finite")


def _check_tensor(tensor: memoryview) -> tuple[str, NDArray[Any]]:
    """Return a tensor's name and its numbers."""
    name = ""
    dims: list[int] = []
    kinds: list[int] = []
    raws: list[memoryview] = []
    for number, wire, value in _fields(tensor):
        if number == _TENSOR_DIMS:
            dims.extend(_packed(_bytes(value)) if wire == _BYTES else [_integer(value)])
        elif number == _TENSOR_TYPE:
            kinds.append(_integer(value))
        elif number == _TENSOR_RAW:
            raws.append(_bytes(value))
        elif number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and value != 0):
            _refuse("the model names external data")
        elif number == _TENSOR_NAME:
            name = _text(value)
        elif number not in _TENSOR_WORDS:
            _refuse("a tensor of the model is not stored as plain bytes")
    if len(kinds) != 1 or len(raws) > 1 or kinds[0] not in _DTYPES:
        _refuse("a tensor of the model has no plain number type")
    return name, _check_numbers(dims, np.dtype(_DTYPES[kinds[0]]), raws[0] if raws else memoryview(b""))


def _check_numbers(dims: list[int], dtype: np.dtype[Any], raw: memoryview) -> NDArray[Any]:
    cells = math.prod(dims)
    if len(dims) > MAX_DIMENSIONS or any(size > MAX_TENSOR_CELLS for size in dims) or cells > MAX_TENSOR_CELLS:
        _refuse(f"a tensor of the model has the shape {dims[:8]}")
    if len(raw) != cells * dtype.itemsize:
        _refuse(f"a tensor of the model has {len(raw)} bytes for the shape {dims[:8]}")
    array = np.frombuffer(raw, dtype) if cells else np.empty(0, dtype)
    if dtype.kind == "f" and not np.isfinite(array).all():
        _refuse("a weight of the model is not finite")
    return array.reshape(dims)


def _fields(message: memoryview) -> Iterator[_Field]:
    """Yield (field number, wire type, value) of each field in a protobuf message."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        value: int | memoryview
        if wire == _VARINT:
            value, at = _varint(message, at)
        elif wire in {_FIXED64, _FIXED32}:
            size = 8 if wire == _FIXED64 else 4
            value, at = int.from_bytes(message[at : at + size], "little"), at + size
        elif wire == _BYTES:
            size, at = _varint(message, at)
            value, at = message[at : at + size], at + size
        else:
            _refuse("the model is not an ONNX file")
        if at > end:
            _refuse("the model is cut short")
        yield number, wire, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, _MAX_VARINT_BITS, 7):
        if at >= len(message):
            _refuse("the model is cut short or not an ONNX file")
        byte = message[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return result, at
    return _refuse("the model is not an ONNX file")


def _packed(data: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        values.append(value)
    return values


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        _refuse("the model is not an ONNX file")
    return value


def _integer(value: int | memoryview) -> int:
    if not isinstance(value, int):
        _refuse("the model is not an ONNX file")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_bytes(value)).decode("utf-8", "replace")


def _refuse(message: str) -> NoReturn:
    raise RejectedError(message, code="bad_bundle")
