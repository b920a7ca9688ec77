from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flts.contracts.claim_check import ClaimCheck
from flts.errors import RejectedError
from flts.tracking.record import (
    Artifact,
    ChampionDocument,
    Metric,
    Registration,
    RunDocument,
    as_texts,
    document_from_json,
)
from flts.tracking.spool import Spool
from tests.stores import folder_store

CLAIM = ClaimCheck(bucket="model-bundles", object_key="a/b", size=1, sha256="0" * 64)


def full_document() -> RunDocument:
    return RunDocument(
        run_id="a" * 32,
        experiment="PobleSec",
        name="GRU-1",
        start_ms=1,
        params={"epochs": "3"},
        tags={"model_type": "GRU"},
        metrics=[Metric("loss", 0.1, 0, 5), Metric("loss", math.inf, 1, 6)],
        artifacts=[Artifact("GRU/model.onnx", data=bytes(range(256))), Artifact("GRU/bundle.json", claim=CLAIM)],
        registration=Registration("GRU", {"model_uri": "s3://x"}),
        status="FINISHED",
        end_ms=7,
    )


def test_a_spooled_document_comes_back_as_it_was() -> None:
    document = full_document()

    assert document_from_json(document.to_json()) == document
    champion = ChampionDocument("PobleSec", "a" * 32)
    assert document_from_json(champion.to_json()) == champion


@given(st.lists(st.tuples(st.text(max_size=5), st.floats(), st.integers(0, 100)), max_size=5), st.binary(max_size=50))
def test_any_value_and_any_bytes_survive_the_spool(values: list[tuple[str, float, int]], data: bytes) -> None:
    document = RunDocument("a" * 32, "s", "", 1)
    for name, value, step in values:
        document.add_metrics({name: value}, step, 9)
    document.add_artifact(Artifact("data", data=data))

    back = document_from_json(document.to_json())

    assert isinstance(back, RunDocument)
    assert repr(back.metrics) == repr(document.metrics)  # compared as text, because NaN is not equal to itself
    assert back.artifacts == document.artifacts


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"kind": "other"},
        {"metrics": [["loss", "no number", 0, 1]]},
        {"artifacts": [{"path": "../x", "data": ""}]},
        {"artifacts": [{"path": "x", "data": "no base64!"}]},
        {"artifacts": [{"path": "x", "claim": {"bucket": ""}}]},
        {"params": 3},
    ],
)
def test_a_document_of_another_kind_is_refused(change: dict[str, object]) -> None:
    values = {**json.loads(full_document().to_json()), **change}

    with pytest.raises(RejectedError):
        document_from_json(json.dumps(values).encode())
    with pytest.raises(RejectedError):
        document_from_json(b"{")


def test_texts_are_cut_to_what_mlflow_takes_and_none_is_left_out() -> None:
    assert as_texts({"a": None, "b": 1.5, "c": "x" * 10_000, "d": True}) == {"b": "1.5", "c": "x" * 5000, "d": "True"}


def test_what_is_spooled_is_recorded_in_an_order_that_can_be(tmp_path: Path) -> None:
    spool = Spool(folder_store(tmp_path), "pipeline-runs")
    addition = RunDocument("c" * 32, "PobleSec", "", 1, metrics=[Metric("test_rmse", 0.1, 0, 1)])
    other = RunDocument("c" * 32, "PobleSec", "", 1, metrics=[Metric("test_mae", 0.1, 0, 1)])
    run = RunDocument("d" * 32, "PobleSec", "", 1, status="FINISHED")

    champion_key = spool.put(ChampionDocument("PobleSec", "c" * 32))
    addition_keys = [spool.put(addition), spool.put(other), spool.put(addition)]
    run_key = spool.put(run)

    assert addition_keys[0] == addition_keys[2]
    assert spool.keys() == [run_key, *sorted(set(addition_keys)), champion_key]


def test_a_document_replaced_since_it_was_read_is_not_forgotten(tmp_path: Path) -> None:
    spool = Spool(folder_store(tmp_path), "pipeline-runs")
    key = spool.put(ChampionDocument("PobleSec", "a" * 32))
    _, info = spool.read(key)
    spool.put(ChampionDocument("PobleSec", "b" * 32))

    spool.remove(key, info.etag)
    assert spool.keys() == [key]

    spool.remove(key, spool.read(key)[1].etag)
    assert spool.keys() == []
