"""Arrays of a bundle in the ONNX file of any exporter."""

from __future__ import annotations

import numpy as np
import onnxruntime

from flts.bundle.graph import check_graph
from flts.training.onnx_file import with_arrays
from tests.linear_models import linear_onnx

MODEL = linear_onnx(np.array([[2.0]]), np.array([1.0]), length=1, features=1, horizon=1)
ARRAYS = {
    "probe.window": np.arange(6, dtype=np.float32).reshape(2, 3, 1),
    "probe.forecast": np.array([[[0.1]], [[1 / 3]]]),
    "probe.seconds": np.array([2**53 + 1], dtype=np.int64),
    "strided": np.arange(12.0).reshape(3, 4).T,
}


def test_the_reader_gets_the_arrays_that_were_added() -> None:
    found = check_graph(with_arrays(MODEL, ARRAYS))

    assert set(found) == set(ARRAYS)
    for name, values in ARRAYS.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


def test_the_arrays_change_no_answer_and_give_the_same_bytes_each_time() -> None:
    model_bytes = with_arrays(MODEL, ARRAYS)

    session = onnxruntime.InferenceSession(model_bytes, providers=["CPUExecutionProvider"])

    [answer] = session.run(["forecast"], {"window": np.array([[[3.0]]], dtype=np.float32)})
    assert answer.tolist() == [[[7.0]]]
    assert with_arrays(MODEL, dict(ARRAYS)) == model_bytes
    assert with_arrays(MODEL, {}) == MODEL
