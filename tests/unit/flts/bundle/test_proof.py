"""A child process proves a model within limits; if a hostile model ends the child process, the caller continues."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import psutil
import pytest

from flts.bundle import proof
from flts.bundle.format import Bundle
from flts.errors import RejectedError
from flts.processes.bounded import BoundedWorkers, Bounds
from tests.hostile_bundles import endless_onnx, hungry_onnx
from tests.linear_models import linear_bundle, with_model
from tests.training_sets import made_series


@pytest.fixture(scope="module")
def made() -> tuple[Bundle, bytes]:
    return linear_bundle(made_series(200))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[BoundedWorkers]:
    """Child processes that may prove a bundle for 2 s."""
    workers = BoundedWorkers(Bounds("flts.bundle.proving:prove_folder", proof.MOST_BYTES, seconds=2))
    monkeypatch.setattr(proof, "_shared", workers)
    yield workers
    workers.close()


def test_a_good_bundle_is_proved_by_the_child_that_is_warm(made: tuple[Bundle, bytes]) -> None:
    proof.prove(*made)
    warm = proof._workers().pids()
    proof.prove(*made)

    assert warm
    assert proof._workers().pids() == warm


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


def test_a_model_that_runs_for_ever_is_not_loaded(made: tuple[Bundle, bytes], short: BoundedWorkers) -> None:
    bundle, _ = made
    endless = endless_onnx(bundle)

    with pytest.raises(RejectedError, match="longer than") as refused:
        proof.prove(with_model(bundle, endless), endless)

    assert refused.value.code == "bad_bundle"
    short._bounds = replace(short._bounds, seconds=60)
    proof.prove(*made)


def test_what_the_model_itself_refuses_keeps_its_words(made: tuple[Bundle, bytes]) -> None:
    bundle, model_bytes = copy.deepcopy(made[0]), made[1]
    wrong = np.asarray(bundle.probe["outputs"]) + 1
    bundle.probe["outputs"][:] = wrong.tolist()

    with pytest.raises(RejectedError, match="away from the trainer's own answer"):
        proof.prove(bundle, model_bytes)
