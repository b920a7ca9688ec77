"""A table of bundles that an attacker with write access to the bucket would make: the stored objects and the reason
that the refusal must contain.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from flts.bundle.format import MAX_BUNDLE_BYTES, Bundle
from flts.bundle.model import WINDOW_INPUT
from flts.contracts.claim_check import ClaimCheck
from flts.storage import layout
from flts.storage.ports import ObjectStore
from flts.training.onnx_file import GraphBuilder, to_bytes
from tests.direct_models import Parts, direct_bundle, hourly_series, seasonal_answer

BUNDLES = "model-bundles"
_NAN = np.full((2, 24, 2), np.nan)
_LONG = np.zeros((5_000_000, 2), np.float32)


@dataclass(frozen=True)
class Planted:
    """The objects in the bucket, and the fields in which the claim differs from them."""

    document: bytes
    model: bytes
    claimed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Attack:
    """A hostile bundle, made from a good one."""

    name: str
    make: Callable[[Bundle, bytes], Planted]
    words: str
    """Text that the reason of the refusal must contain."""


def hungry_onnx(bundle: Bundle) -> bytes:
    """Return a model whose product of a column and a row of 46,341 has 2^31 cells: 8 GiB from 370 kB of weights."""
    graph, flat = _window(bundle)
    side = graph.constant(np.ones((46_341, 1), np.float32))
    other = graph.constant(np.ones((1, 46_341), np.float32))
    return _finished(bundle, graph, flat, graph.node("Mul", [side, other]))


def hungry_batch_onnx(bundle: Bundle) -> bytes:
    """Return a model with 2^22 cells for each window: 16 MiB for the probe, 8 GiB for a full batch."""
    graph, flat = _window(bundle)
    first = graph.node("ReduceSum", [flat, graph.integers(1)], keepdims=1)
    wide = graph.node("Mul", [first, graph.constant(np.ones((1, 2_048), np.float32))])
    tall = graph.node("Unsqueeze", [wide, graph.integers(2)])
    return _finished(bundle, graph, flat, graph.node("Mul", [tall, graph.constant(np.ones((1, 1, 2_048), np.float32))]))


def endless_onnx(bundle: Bundle) -> bytes:
    """Return a model of 3,000 matrix products; each product runs for a quarter of a second."""
    graph, flat = _window(bundle)
    first = graph.node("ReduceSum", [flat, graph.integers(0, 1)], keepdims=0)
    square = graph.node("Mul", [graph.constant(np.zeros((1_500, 1_500), np.float32)), first])
    for _ in range(3_000):
        square = graph.node("MatMul", [square, square])
    return _finished(bundle, graph, flat, square)


def plant(store: ObjectStore, bundle: Bundle, planted: Planted) -> ClaimCheck:
    """Write a bundle's objects without any check; return the claim that names them."""
    digest = hashlib.sha256(planted.document + planted.model).hexdigest()
    folder = layout.folder_of(layout.BUNDLE(bundle.identifier, bundle.config_hash, bundle.model_type, digest))
    store.put(BUNDLES, f"{folder}/bundle.json", planted.document)
    store.put(BUNDLES, f"{folder}/model.onnx", planted.model)
    claim = ClaimCheck(
        bucket=BUNDLES,
        object_key=f"{folder}/bundle.json",
        size=len(planted.document),
        sha256=hashlib.sha256(planted.document).hexdigest(),
    )
    return claim.model_copy(update=dict(planted.claimed))


def honest(bundle: Bundle, model: bytes) -> Planted:
    """Return a bundle with the true hash and size of ``model``, which may be invalid."""
    named = replace(bundle, model_sha256=hashlib.sha256(model).hexdigest(), model_size=len(model))
    return Planted(named.to_json(), model)


def _zeros(bundle: Bundle) -> Bundle:
    """Return the bundle with a probe of zeros, which is right for a model that answers zeros."""
    outputs = np.zeros_like(np.asarray(bundle.probe["outputs"], dtype=float)).tolist()
    return replace(bundle, probe={**bundle.probe, "outputs": outputs})


def _changed(change: Callable[[onnx.ModelProto], None]) -> Callable[[Bundle, bytes], Planted]:
    """Return a function that changes the good model and makes a bundle with the true hash of the result."""

    def make(bundle: Bundle, model: bytes) -> Planted:
        proto = onnx.load_from_string(model)
        change(proto)
        return honest(bundle, proto.SerializeToString())

    return make


def _weight(proto: onnx.ModelProto) -> onnx.TensorProto:
    return next(tensor for tensor in proto.graph.initializer if tensor.data_type == TensorProto.FLOAT)


def _nan_weights(proto: onnx.ModelProto) -> None:
    weight = _weight(proto)
    cells = np.frombuffer(weight.raw_data, np.float32).copy()
    cells[0] = np.nan
    weight.raw_data = cells.tobytes()


def _huge_shape(proto: onnx.ModelProto) -> None:
    weight = _weight(proto)
    weight.dims[:] = [2**31, 1]


def _external(proto: onnx.ModelProto) -> None:
    weight = _weight(proto)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../../../../../etc/passwd")


def _foreign(proto: onnx.ModelProto) -> None:
    proto.opset_import.append(helper.make_opsetid("com.evil", 1))
    proto.graph.node[0].domain = "com.evil"


def _loop(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].op_type = "Loop"


def _shape_from_request(proto: onnx.ModelProto) -> None:
    given = proto.graph.input[0].name
    cast = helper.make_node("Cast", [given], ["given-as-integers"], to=TensorProto.INT64)
    slices = helper.make_node("Slice", [given, "given-as-integers", "given-as-integers"], ["any-size"])
    proto.graph.node.extend([cast, slices])


class Runs:
    """An object that runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch /tmp/flts-unpickled",)


def _zip_with_dots() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../../../../tmp/flts-unzipped", b"x")
        archive.writestr("model.onnx", b"x")
    return packed.getvalue()


def _version(bundle: Bundle, model: bytes) -> Planted:
    document = json.loads(bundle.to_json()) | {"format_version": 3}
    return Planted(json.dumps(document).encode(), model)


def _extra(bundle: Bundle, model: bytes) -> Planted:
    document = json.loads(bundle.to_json()) | {"code": "import os"}
    return Planted(json.dumps(document).encode(), model)


def _nan_scale(bundle: Bundle, model: bytes) -> Planted:
    text = json.dumps(json.loads(bundle.to_json()) | {"metrics": {"val_loss": float("nan")}})
    return Planted(text.encode(), model)


def _lying_probe(bundle: Bundle, model: bytes) -> Planted:
    outputs = (np.asarray(bundle.probe["outputs"]) + 1).tolist()
    return Planted(replace(bundle, probe={**bundle.probe, "outputs": outputs}).to_json(), model)


def _direct(bundle: Bundle, **options: Any) -> tuple[Bundle, bytes]:
    """Return a direct bundle with the names of another one."""
    names = {name: getattr(bundle, name) for name in ("identifier", "config_hash", "model_type")}
    return direct_bundle(hourly_series(200), **options, **names)


def _few_places(bundle: Bundle, _: bytes) -> Planted:
    """Return a model whose table ends before the last place of the season."""
    return honest(*_direct(bundle, build=lambda parts, graph: seasonal_answer(_cut(parts, 3), graph)))


def _cut(parts: Parts, places: int) -> Parts:
    return replace(parts, profile=parts.profile[:places])


def _wide_table(bundle: Bundle, _: bytes) -> Planted:
    """Return a model that reads a row of 2^16 numbers at each place: 12 MiB for the probe, 9 GiB for a full batch."""

    def build(parts: Parts, graph: GraphBuilder) -> str:
        place = graph.node("Gather", ["places", graph.constant(np.array(0))], axis=2)
        rows = graph.node("Gather", [graph.constant(np.zeros((24, 2**16), np.float32)), place], axis=0)
        nothing = graph.node("Mul", [graph.node("ReduceSum", [rows], keepdims=0), graph.constant(np.float32(0))])
        return graph.node("Add", [seasonal_answer(parts, graph), nothing])

    return honest(*_direct(bundle, build=build))


def _used_array(bundle: Bundle, _: bytes) -> Planted:
    """Return a model that answers with the probe's own answers."""
    direct, model = _direct(bundle)
    proto = onnx.load_from_string(model)
    proto.graph.node[-1].input[0] = "bundle.probe.forecast"
    return honest(direct, proto.SerializeToString())


ATTACKS = [
    Attack("another document than promised", lambda b, m: Planted(b.to_json(), m, {"sha256": "0" * 64}), "SHA-256"),
    Attack("another size than promised", lambda b, m: Planted(b.to_json(), m, {"size": 7}), "promised were 7"),
    Attack("another model than promised", lambda b, m: Planted(b.to_json(), m[:-1] + b"!"), "SHA-256"),
    Attack("a claim that climbs", lambda b, m: Planted(b.to_json(), m, {"object_key": "../x/bundle.json"}), "segment"),
    Attack("a claim on a pickle", lambda b, m: Planted(b.to_json(), m, {"object_key": "x/model.pkl"}), "not a bundle"),
    Attack("weights that are NaN", _changed(_nan_weights), "a weight of the model is not finite"),
    Attack("a shape of 2^31", _changed(_huge_shape), "shape [2147483648, 1]"),
    Attack("2^31 cells out of small weights", lambda b, _: honest(_zeros(b), hungry_onnx(b)), "allocate"),
    Attack("2^31 cells for a full batch", lambda b, _: honest(_zeros(b), hungry_batch_onnx(b)), "allocate"),
    Attack("a shape out of the request", _changed(_shape_from_request), "depends on the numbers in a request"),
    Attack("external data", _changed(_external), "external data"),
    Attack("an operator of its own", _changed(_foreign), "operator domain"),
    Attack("a loop", _changed(_loop), "operator 'Loop'"),
    Attack("noise as model", lambda b, _: honest(b, b"\xff" * 4096), "not an ONNX file"),
    Attack("half a model", lambda b, m: honest(b, m[: len(m) // 2]), "the model"),
    Attack("a pickle as model", lambda b, _: honest(b, pickle.dumps(Runs())), "zip or pickle"),
    Attack("a zip with .. as model", lambda b, _: honest(b, _zip_with_dots()), "zip or pickle"),
    Attack("a pickle as document", lambda _, m: Planted(pickle.dumps(Runs()), m), "not JSON"),
    Attack("a zip with .. as document", lambda _, m: Planted(_zip_with_dots(), m), "not JSON"),
    Attack("an unknown format version", _version, "unknown format version 3"),
    Attack("a field of code", _extra, "code"),
    Attack("a number that is none", _nan_scale, "not a finite number"),
    Attack("100,000 levels", lambda _, m: Planted(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, m), "not JSON"),
    Attack("a document of 9 MB", lambda b, m: Planted(b.to_json() + b" " * MAX_BUNDLE_BYTES, m), "more than 8388608"),
    Attack("a probe that lies", _lying_probe, "away from the trainer's own answer"),
    Attack("a table without the last places", _few_places, "does not run"),
    Attack("2^16 numbers for each place", _wide_table, "allocate"),
    Attack("an answer out of the probe", _used_array, "data of the bundle"),
    Attack("a NaN in an array", lambda b, _: honest(*_direct(b, arrays={"probe.forecast": _NAN})), "not finite"),
    Attack("an array of 40 MB", lambda b, _: honest(*_direct(b, arrays={"probe.past": _LONG})), "probe.past"),
]


def _window(bundle: Bundle) -> tuple[GraphBuilder, str]:
    graph = GraphBuilder()
    width = bundle.input_seq_len * len(bundle.recipe.feature_names)
    return graph, graph.node("Reshape", [WINDOW_INPUT, graph.integers(-1, width)])


def _finished(bundle: Bundle, graph: GraphBuilder, flat: str, load: str) -> bytes:
    """Return a model that answers zeros of the right shape; the answer depends on ``load``, so it must be computed."""
    features = len(bundle.recipe.feature_names)
    horizon, columns = bundle.output_seq_len, bundle.output_columns
    total = graph.node("ReduceSum", [load], keepdims=0)
    nothing = graph.node("Mul", [total, graph.constant(np.zeros(1, np.float32))])
    width = bundle.input_seq_len * features
    weights = graph.constant(np.zeros((width, horizon * columns), np.float32))
    answer = graph.node("MatMul", [graph.node("Add", [flat, nothing]), weights])
    shaped = graph.node("Reshape", [answer, graph.integers(-1, horizon, columns)])
    return to_bytes(graph.window_model(shaped, window=(bundle.input_seq_len, features), forecast=(horizon, columns)))
