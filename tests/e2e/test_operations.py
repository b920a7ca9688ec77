"""Operations on a running pipeline: rollback, retrain, cancel, deletion, janitor and doctor, with their durations."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.eventually import eventually
from tests.files_below import files_below
from tests.replicas import Instance, launched, replica
from tests.reports import report
from tests.stack import RunningStack
from tests.swinging import write_swinging
from tests.trainers import of_models

NAME = "operated"
ROLLBACK_SECONDS = 10.0

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def replicas(stack: RunningStack) -> Iterator[list[Instance]]:
    """Yield the launcher's inference replica and a second replica."""
    with replica(stack, "inference") as second:
        yield [launched(stack, "inference"), second]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_swinging(tmp_path_factory.mktemp("operated"), train_rows=2500, test_rows=400)


@pytest.fixture(scope="module")
def champions(stack: RunningStack, replicas: list[Instance], files: tuple[Path, Path]) -> tuple[str, str]:
    """Promote two models of one identifier; return their run_ids once every replica serves the second model."""
    first = stack.wait_decided(stack.upload(NAME, *files, settings={"EPOCHS": 3}))
    assert first["outcome"] == "promoted", first["decision"]
    second = stack.wait_decided(stack.upload(NAME, *files, settings={"EPOCHS": 12, "HIDDEN_SIZE": 24}))
    assert second["outcome"] == "promoted", second["decision"]
    for one in replicas:
        eventually(lambda one=one: served(one) == second["decision"]["run_id"], "the second champion", timeout=30)
    return first["decision"]["run_id"], second["decision"]["run_id"]


def body(stack: RunningStack, identifier: str = NAME) -> dict[str, Any]:
    with stack.gateway as client:
        return dict(client.get(f"/datasets/{identifier}/tail").json())


def served(one: Instance, request: dict[str, Any] | None = None) -> str | None:
    """Return the run_id of a replica's forecast or, without a request, of its champion; None without a champion."""
    if request is not None:
        answer = httpx.post(f"{one.url}/predict", json=request, timeout=10)
        return str(answer.json()["run_id"]) if answer.status_code == 200 else None
    models = httpx.get(f"{one.url}/models", timeout=10).json()["models"]
    return next((str(model["run_id"]) for model in models if model["identifier"] == NAME), None)


def flts(stack: RunningStack, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `flts` with only FLTS_HOME set, from which it reads the pipeline's addresses and key."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FLTS_", "GATEWAY_"))}
    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        env={**environment, "FLTS_HOME": str(stack.home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_rollback_is_answered_by_every_replica_within_ten_seconds(
    stack: RunningStack, replicas: list[Instance], champions: tuple[str, str]
) -> None:
    old, new = champions
    request = body(stack)
    assert [served(one, request) for one in replicas] == [new, new]

    began = time.monotonic()

    def until_old(one: Instance) -> float:
        eventually(lambda: served(one, request) == old, f"{one.name} answers with the old champion", timeout=60)
        return time.monotonic() - began

    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(until_old, one) for one in replicas]
        asked = flts(stack, "rollback", NAME, "--reason", "worse at night", "--json")
        seconds = {one.name: round(each.result(), 2) for one, each in zip(replicas, waiting, strict=True)}
    report("rollback", [seconds])

    assert asked.returncode == 0, asked.stderr
    assert max(seconds.values()) < ROLLBACK_SECONDS, seconds
    run = stack.wait_decided(json.loads(asked.stdout)["pipeline_run_id"])
    assert (run["cause"], run["reason"], run["outcome"]) == ("rollback", "worse at night", "promoted")
    why = flts(stack, "why", run["pipeline_run_id"])
    assert "cause: rollback; because: worse at night" in why.stdout
    assert "rollback: worse at night" in flts(stack, "runs").stdout


def test_runs_are_started_judged_taken_up_and_ended_by_command_and_say_why(
    stack: RunningStack, champions: tuple[str, str], files: tuple[Path, Path]
) -> None:
    assert champions
    options = ("--salt", "another", "--set", "EPOCHS=2", "--force", "--reason", "new ideas")
    retrained = stack.wait_decided(_asked(flts(stack, "retrain", NAME, *options, "--json")))
    assert (retrained["cause"], retrained["reason"]) == ("retrain", "new ideas")
    assert not any(trained["reused"] for trained in retrained["trained"].values())
    why = flts(stack, "why", retrained["pipeline_run_id"]).stdout
    assert "cause: retrain, forced, with EPOCHS=2, with a new salt; because: new ideas" in why

    trainings = len(stack.log_events("train-gru", "train_start"))
    again = ("evaluate", retrained["pipeline_run_id"], "--reason", "a second look", "--json")
    judged = stack.wait_decided(_asked(flts(stack, *again)))
    assert (judged["cause"], judged["reason"]) == ("evaluate", "a second look")
    assert set(of_models(judged["trained"])) == set(of_models(retrained["trained"]))
    assert len(stack.log_events("train-gru", "train_start")) == trainings, "nothing was trained again"

    busy = stack.upload(NAME, *files, settings={"EPOCHS": 400, "EARLY_STOPPING": False, "SEED": 11})
    eventually(lambda: _trains(stack, busy), "a trainer is at work", timeout=60)
    resumed = flts(stack, "resume", busy, "--reason", "impatient", "--json")
    assert json.loads(resumed.stdout) == {"resumed": [busy]}
    ended = flts(stack, "cancel", busy, "--reason", "wrong file")
    assert ended.returncode == 0, ended.stderr
    assert stack.wait_decided(busy)["outcome"] == "cancelled"
    why = flts(stack, "why", busy).stdout
    assert "cancelled: a person cancelled it: wrong file" in why
    assert "because: impatient" in why
    starts = [line["pipeline_run_id"] for line in stack.log_events("train-gru", "train_start")]
    assert starts.count(busy) == 1, "announced again, it was not trained a second time"
    for pid in _training(stack):
        os.kill(pid, signal.SIGKILL)  # a cancellation does not end the training, which would continue for 400 epochs


def _asked(answer: subprocess.CompletedProcess[str]) -> str:
    assert answer.returncode == 0, answer.stderr
    return str(json.loads(answer.stdout)["pipeline_run_id"])


def test_doctor_finds_every_backend_of_a_running_pipeline_well(stack: RunningStack) -> None:
    found = flts(stack, "doctor", "--json")

    answer = json.loads(found.stdout)
    report("doctor", [{name: one[name] for name in ("backend", "step", "milliseconds")} for one in answer["findings"]])
    wrong = [one for one in answer["findings"] if one["status"] != "ok"]
    assert found.returncode == 0, wrong
    assert wrong == []
    assert {one["backend"] for one in answer["findings"]} == {"kafka", "store", "mlflow", "gateway", "inference"}
    key = (stack.home / "api-key").read_text().strip()
    assert key not in found.stdout
    assert answer["settings"]["FLTS_API_KEY"]["value"] == "********"


def test_the_janitors_look_changes_nothing(stack: RunningStack, champions: tuple[str, str]) -> None:
    assert champions
    before = sorted(str(path) for path in files_below(stack.store / "pipeline-runs" / NAME, ".json"))

    looked = flts(stack, "janitor", "--dry-run")

    assert looked.returncode == 0, looked.stderr
    assert sorted(str(path) for path in files_below(stack.store / "pipeline-runs" / NAME, ".json")) == before


def test_a_deleted_data_set_is_gone_everywhere_though_a_trainer_was_at_work_on_it(
    stack: RunningStack, replicas: list[Instance], champions: tuple[str, str], files: tuple[Path, Path]
) -> None:
    request = body(stack)
    assert champions
    trained_before = len(stack.log_events("train-gru", "run_deleted"))
    busy = stack.upload(NAME, *files, settings={"EPOCHS": 400, "EARLY_STOPPING": False, "SEED": 7})
    eventually(lambda: _trains(stack, busy), "a trainer is at work", timeout=60)
    refused = flts(stack, "delete", NAME, "--yes")

    deleted = flts(stack, "delete", NAME, "--cancel", "--yes", "--reason", "a trial", "--json")
    began = time.monotonic()
    answers = {
        one.name: eventually(
            lambda one=one: answer if (answer := _answer(one, request))[0] == 404 else None, "404", timeout=60
        )
        for one in replicas
    }
    seconds = round(time.monotonic() - began, 2)

    assert refused.returncode == 1
    assert busy in refused.stderr
    assert deleted.returncode == 0, deleted.stderr
    counts = json.loads(deleted.stdout)
    report("delete", [{"seconds_to_404": seconds, "objects": counts["objects"], "bytes": counts["bytes"]}])
    assert {code for _, code in answers.values()} == {"unknown_identifier"}
    assert counts["cancelled"] == [busy]
    # A trainer reads the tombstone of deleted data only between two attempts, and then removes its objects. So the test
    # ends the attempt that is running.
    for pid in _training(stack):
        os.kill(pid, signal.SIGKILL)  # the attempt would otherwise train 400 epochs
    eventually(lambda: len(stack.log_events("train-gru", "run_deleted")) > trained_before, "told", timeout=90)
    eventually(lambda: not _left(stack), f"left: {_left(stack)}", timeout=60)
    assert not list(stack.home.glob(f"inference*/{NAME}"))
    eventually(lambda: not _in_mlflow(stack), "MLflow has forgotten it", timeout=120, every=1)
    why = flts(stack, "why", NAME)
    assert f"{NAME} was deleted" in why.stdout
    assert "because: a trial" in why.stdout

    again = stack.wait_decided(stack.upload(NAME, *files, settings={"EPOCHS": 3}))
    assert again["outcome"] == "promoted", again["decision"]
    assert not any(trained["reused"] for trained in again["trained"].values()), "nothing of before was left to reuse"


def _answer(one: Instance, request: dict[str, Any]) -> tuple[int, str]:
    answer = httpx.post(f"{one.url}/predict", json=request, timeout=10)
    return answer.status_code, str(answer.json().get("error", {}).get("code"))


def _trains(stack: RunningStack, run_id: str) -> bool:
    return any(stage["stage"] == "train-gru" and not stage.get("end") for stage in stack.run(run_id)["stages"])


def _training(stack: RunningStack) -> list[int]:
    """Return the pids of the child processes of both trainers of networks."""
    return [child.pid for name in ("train-gru", "train-lstm") for child in launched(stack, name).children()]


def _left(stack: RunningStack) -> list[str]:
    keys = [path.relative_to(stack.store) for path in files_below(stack.store)]
    ours = ("_operations", "_deleted", "_leases")
    return [str(key) for key in keys if NAME in key.parts[-1] + "/".join(key.parts) and not set(ours) & set(key.parts)]


def _in_mlflow(stack: RunningStack) -> bool:
    api = f"{stack.state['mlflow_url']}/api/2.0/mlflow"
    experiment = httpx.get(f"{api}/experiments/get-by-name", params={"experiment_name": NAME}, timeout=10)
    model = httpx.get(f"{api}/registered-models/get", params={"name": NAME}, timeout=10)
    return experiment.status_code == 200 or model.status_code == 200
