"""What a hostile model asks for, a child is refused; whoever asked goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from flts.bundle import proof
from flts.bundle.format import Bundle
from flts.errors import RejectedError
from flts.runtime.bounded import BoundedWorkers, Bounds
from tests.hostile_bundles import endless_onnx, hungry_onnx
from tests.linear_models import linear_bundle, with_model
from tests.training_sets import made_series


@pytest.fixture(scope="module")
def made() -> tuple[Bundle, bytes]:
    return linear_bundle(made_series(200))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Proofs of two seconds."""
    workers = BoundedWorkers(Bounds("flts.bundle.proving:prove_folder", proof.MOST_BYTES, seconds=2))
    monkeypatch.setattr(proof, "_shared", workers)
    yield
    workers.close()


def test_a_good_bundle_is_proved_in_a_moment_once_the_child_is_warm(made: tuple[Bundle, bytes]) -> None:
    proof.prove(*made)
    started = time.perf_counter()
    proof.prove(*made)
    assert time.perf_counter() - started < 2


def test_two_to_the_thirty_one_cells_out_of_four_hundred_kilobytes_are_not_loaded(made: tuple[Bundle, bytes]) -> None:
    bundle, _ = made
    hungry = hungry_onnx(bundle)
    assert len(hungry) < 400_000
    before = psutil.Process().memory_info().rss

    with pytest.raises(RejectedError, match=r"allocate|memory") as refused:
        proof.prove(with_model(bundle, hungry), hungry)

    assert refused.value.code == "bad_bundle"
    assert psutil.Process().memory_info().rss < before + 100 * 2**20
    proof.prove(*made)


@pytest.mark.usefixtures("short")
def test_a_model_that_runs_for_ever_is_not_loaded(made: tuple[Bundle, bytes]) -> None:
    bundle, _ = made
    endless = endless_onnx(bundle)

    with pytest.raises(RejectedError, match="longer than") as refused:
        proof.prove(with_model(bundle, endless), endless)

    assert refused.value.code == "bad_bundle"
    proof.prove(*made)


def test_what_the_model_itself_refuses_keeps_its_words(made: tuple[Bundle, bytes]) -> None:
    bundle, model_bytes = made
    wrong = np.asarray(bundle.probe["outputs"]) + 1
    bundle.probe["outputs"][:] = wrong.tolist()

    with pytest.raises(RejectedError, match="away from the trainer's own answer"):
        proof.prove(bundle, model_bytes)
