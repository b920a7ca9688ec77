from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flts.bundle.graph import check_graph
from flts.errors import RejectedError


def model(*nodes: onnx.NodeProto, constants: tuple[onnx.TensorProto, ...] = (), domain: str = "") -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])],
        list(constants),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, 17)])


def add(constant: onnx.TensorProto) -> onnx.ModelProto:
    return model(helper.make_node("Add", ["x", constant.name], ["y"]), constants=(constant,))


def external() -> onnx.ModelProto:
    tensor = numpy_helper.from_array(np.ones(2, np.float32), "c")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return add(tensor)


def unpacked() -> onnx.ModelProto:
    return add(helper.make_tensor("c", TensorProto.FLOAT, [2], [1.0, float("nan")]))


def short() -> onnx.ModelProto:
    tensor = numpy_helper.from_array(np.ones(2, np.float32), "c")
    tensor.dims[0] = 1_000_000
    return add(tensor)


def huge() -> onnx.ModelProto:
    tensor = numpy_helper.from_array(np.ones(2, np.float32), "c")
    tensor.dims.extend([2**31, 2**31, 2**31])
    return add(tensor)


def flat(values: np.ndarray, dimensions: int) -> onnx.TensorProto:
    tensor = numpy_helper.from_array(values, "c")
    tensor.dims[:] = [1] * dimensions
    return tensor


def inner_graph() -> onnx.ModelProto:
    node = helper.make_node("Identity", ["x"], ["y"])
    node.attribute.append(helper.make_attribute("then_branch", model().graph))
    return model(node)


def with_function() -> onnx.ModelProto:
    made = model()
    made.functions.append(
        helper.make_function(
            "", "Mine", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])], [helper.make_opsetid("", 17)]
        )
    )
    return made


def sparse() -> onnx.ModelProto:
    made = model()
    values = numpy_helper.from_array(np.ones(1, np.float32), "c")
    made.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, numpy_helper.from_array(np.zeros(1, np.int64), "i"), [9])
    )
    return made


def foreign_node() -> onnx.ModelProto:
    return model(helper.make_node("Identity", ["x"], ["y"], domain="com.evil"))


def sliced(until: str) -> onnx.ModelProto:
    """Return a slice whose end is a constant, the batch size, or a number of the request."""
    constants = tuple(numpy_helper.from_array(np.array([at]), name) for at, name in enumerate(("start", "end")))
    return model(
        helper.make_node("Cast", ["x"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Neg", ["whole"], ["turned"]),
        helper.make_node("Shape", ["turned"], ["batch"]),
        helper.make_node("Slice", ["x", "start", until], ["y"]),
        constants=constants,
    )


@pytest.mark.parametrize("until", ["end", "batch"])
def test_shapes_may_hang_on_constants_and_on_the_size_of_a_request(until: str) -> None:
    check_graph(sliced(until).SerializeToString())


REFUSED: list[tuple[Callable[[], onnx.ModelProto], str]] = [
    (external, "external data"),
    (lambda: model(domain="com.microsoft"), "operator domain 'com.microsoft'"),
    (foreign_node, "operator domain 'com.evil'"),
    (lambda: model(helper.make_node("Loop", ["x"], ["y"])), "operator 'Loop'"),
    (lambda: model(helper.make_node("RandomNormalLike", ["x"], ["y"])), "operator 'RandomNormalLike'"),
    (inner_graph, "inner graph"),
    (with_function, "functions"),
    (sparse, "sparse"),
    (lambda: add(numpy_helper.from_array(np.array([1.0, np.nan], np.float32), "c")), "not finite"),
    (lambda: add(numpy_helper.from_array(np.array([1.0, np.inf]), "c")), "not finite"),
    (lambda: add(numpy_helper.from_array(np.array(["a"], dtype=object), "c")), "plain"),
    (lambda: model(helper.make_node("LeakyRelu", ["x"], ["y"], alpha=float("nan"))), "attribute"),
    (lambda: model(helper.make_node("Constant", [], ["y"], value_floats=[1.0, float("inf")])), "attribute"),
    (lambda: model(*[helper.make_node("Identity", ["x"], ["y"])] * 6000), "more than 5000 nodes"),
    (unpacked, "plain bytes"),
    (lambda: sliced("x"), "depends on the numbers in a request"),
    (lambda: sliced("turned"), "depends on the numbers in a request"),
    (short, "bytes for the shape"),
    (huge, "shape"),
    (lambda: add(flat(np.ones(1, np.float32), 100)), r"shape \[1, 1, 1, 1, 1, 1, 1, 1\]"),
    (lambda: add(numpy_helper.from_array(np.ones(2, np.float32), "bundle.c")), "uses bundle.c"),
]


@pytest.mark.parametrize(("make", "reason"), REFUSED)
def test_more_than_arithmetic_on_finite_numbers_is_refused_by_name(
    make: Callable[[], onnx.ModelProto], reason: str
) -> None:
    with pytest.raises(RejectedError, match=reason) as refused:
        check_graph(make().SerializeToString())
    assert refused.value.code == "bad_bundle"


def test_plain_arithmetic_passes() -> None:
    check_graph(add(numpy_helper.from_array(np.ones(3, np.float32), "c")).SerializeToString())


def test_arrays_of_the_bundle_are_returned_by_their_names() -> None:
    values = {"probe.past": np.arange(6, dtype=np.float32).reshape(2, 3), "empty": np.zeros((0, 4)), "one": np.array(7)}
    constants = tuple(numpy_helper.from_array(array, f"bundle.{name}") for name, array in values.items())

    found = check_graph(model(constants=(*constants, numpy_helper.from_array(np.ones(2), "c"))).SerializeToString())

    assert set(found) == set(values)
    for name, array in values.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def zipped() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("model.onnx", b"")
    return content.getvalue()


@pytest.mark.parametrize("data", [zipped(), pickle.dumps({"model": 1}), b"", b"\xff" * 64, b"not a model at all"])
def test_what_is_no_onnx_is_refused(data: bytes) -> None:
    with pytest.raises(RejectedError) as refused:
        check_graph(data)
    assert refused.value.code == "bad_bundle"


def test_a_model_cut_anywhere_never_crashes_the_reader() -> None:
    data = add(numpy_helper.from_array(np.arange(6, dtype=np.float32), "c")).SerializeToString()
    refusals = 0

    for length in range(len(data)):
        try:
            check_graph(data[:length])
        except RejectedError:
            refusals += 1

    assert refusals > len(data) // 2
