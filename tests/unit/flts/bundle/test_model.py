from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from flts.bundle.format import Bundle
from flts.bundle.model import BundleModel
from flts.bundle.tensors import MAX_BATCH
from flts.errors import HashMismatchError, RejectedError
from flts.training.onnx_file import GraphBuilder, to_bytes
from tests.linear_models import linear_bundle, linear_onnx, with_model
from tests.training_sets import made_series


@pytest.fixture(scope="module")
def made() -> tuple[Bundle, bytes]:
    return linear_bundle(made_series(200))


def test_windows_beyond_one_batch_are_answered_as_if_one_by_one(made: tuple[Bundle, bytes]) -> None:
    model = BundleModel(*made)
    windows = np.random.default_rng(0).random((MAX_BATCH + 3, 4, 9), dtype=np.float32)

    answers = model.run_windows(windows)

    assert answers.shape == (MAX_BATCH + 3, 1, 3)
    assert answers.dtype == np.float64
    assert np.allclose(answers[-1], model.run_windows(windows[-1:])[0], rtol=1e-6)
    assert model.run_windows(windows[:0]).shape == (0, 1, 3)


def test_threads_may_ask_one_model_at_once(made: tuple[Bundle, bytes]) -> None:
    model = BundleModel(*made)
    windows = np.random.default_rng(1).random((64, 4, 9), dtype=np.float32)
    expected = [model.run_windows(windows[at : at + 1]) for at in range(64)]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda at: model.run_windows(windows[at : at + 1]), range(64)))

    assert np.array_equal(np.concatenate(answers), np.concatenate(expected))


def test_bytes_that_the_bundle_does_not_name_are_refused(made: tuple[Bundle, bytes]) -> None:
    bundle, model_bytes = made

    with pytest.raises(HashMismatchError):
        BundleModel(bundle, model_bytes[:-1])
    with pytest.raises(HashMismatchError):
        BundleModel(replace(bundle, model_sha256="0" * 64), model_bytes)


def test_a_model_that_answers_the_probe_differently_is_refused(made: tuple[Bundle, bytes]) -> None:
    bundle, _ = made
    other = linear_onnx(np.ones((36, 3)), np.zeros(3), length=4, features=9, horizon=1)

    with pytest.raises(RejectedError, match="away from the trainer's own answer"):
        BundleModel(with_model(bundle, other), other)


def test_a_model_of_other_windows_is_refused_by_its_shape(made: tuple[Bundle, bytes]) -> None:
    bundle, _ = made
    other = linear_onnx(np.ones((45, 3)), np.zeros(3), length=5, features=9, horizon=1)

    with pytest.raises(RejectedError, match="the model takes"):
        BundleModel(with_model(bundle, other), other)


def test_a_model_of_other_answers_is_refused_by_its_shape(made: tuple[Bundle, bytes]) -> None:
    bundle, _ = made
    other = linear_onnx(np.ones((36, 6)), np.zeros(6), length=4, features=9, horizon=2)

    with pytest.raises(RejectedError, match="the model answers"):
        BundleModel(with_model(bundle, other), other)


def test_a_model_that_answers_with_infinities_is_refused(made: tuple[Bundle, bytes]) -> None:
    bundle, _ = made
    graph = GraphBuilder()
    flat = graph.node("Reshape", ["window", graph.integers(-1, 36)])
    dead = graph.node("Log", [graph.node("Mul", [flat, graph.constant(np.zeros(1, np.float32))])])
    narrow = graph.node("MatMul", [dead, graph.constant(np.ones((36, 3), np.float32))])
    answer = graph.node("Reshape", [narrow, graph.integers(-1, 1, 3)])
    other = to_bytes(graph.window_model(answer, window=(4, 9), forecast=(1, 3)))

    with pytest.raises(RejectedError, match="not finite"):
        BundleModel(with_model(bundle, other), other)


def test_a_graph_that_does_not_load_is_refused_with_the_reason(made: tuple[Bundle, bytes]) -> None:
    bundle, _ = made
    graph = GraphBuilder()
    answer = graph.node("MatMul", ["nowhere", "window"])
    broken = graph.window_model(answer, window=(4, 9), forecast=(1, 3)).SerializeToString()

    with pytest.raises(RejectedError, match="does not load") as refused:
        BundleModel(with_model(bundle, broken), broken)
    assert refused.value.code == "bad_bundle"
