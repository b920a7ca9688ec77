"""A service is killed with SIGKILL in the middle of its work: each run still has one decision and a served forecast.

The cases are seven points of the kill matrix: the most critical point of each service. `test_kill_matrix` tests all.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.killing import Case, Killing, Matrix
from tests.stack import SMALL, running_stack
from tests.swinging import write_swinging

pytestmark = pytest.mark.timeout(900)

CASES = [
    Case("fastapi-app", "fastapi-app", "produce.before", "raw-data/{identifier}"),
    Case(
        "preprocess", "preprocess.child", "object-write.after", "processed-data/{identifier}/*/processed_data.parquet"
    ),
    Case("train-gru", "train-gru.child", "object-write.before", "model-bundles/{identifier}/*/bundle.json"),
    Case("nonml-prophet", "nonml-prophet", "produce.after", "model-training/{identifier}"),
    Case("eval", "eval.child", "object-write.after", "pipeline-runs/{identifier}/*/decision.json"),
    Case("inference", "inference", "swap.before", "{identifier}"),
    Case("inference-worker", "inference-worker", "produce.after", "performance-eval/{identifier}"),
]


def test_a_service_killed_in_the_middle_of_its_work_is_made_up_for(tmp_path: Path) -> None:
    train, test = write_swinging(tmp_path / "sample", train_rows=900, test_rows=150)
    points = tmp_path / "points"
    points.mkdir()

    # Without LSTM, which no case kills: it is the program of train-gru, and it would train in every run.
    trainers = {"EXPECTED_MODEL_TYPES": "GRU,PROPHET"}
    with running_stack(tmp_path / "home", KILL_POINTS=str(points), **trainers, **SMALL) as stack:
        rows = Matrix(Killing(stack, points, train, test, {"EPOCHS": 1})).run(CASES)

    assert not [row["result"] for row in rows if row["failed"]]
    assert [row["service"] for row in rows] == [case.program for case in CASES]
