"""Two replicas of each service: no work is done twice, and a remaining replica continues the work of a lost replica."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import whole_log
from tests.eventually import eventually
from tests.files_below import files_below
from tests.replicas import Instance, identifier_for, launched, replica, wait_shared
from tests.reports import report
from tests.stack import RunningStack
from tests.trainers import INSTALLED
from tests.what_remains import Kept, settled

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]
PATIENCE = 600.0
"""Timeout in seconds of one step; the tests assert shorter times where a step must be fast."""
STAY_SECONDS = 3.0
"""Seconds to wait after the last message was read; the inference worker reacts to a message within 0.5 s."""

SHARED = {
    "eval": ("training-data", "model-training"),
    "inference-worker": ("inference-data",),
    "train-gru": ("training-data",),
}
"""Services with two replicas, and the topics whose partitions the two replicas share."""
MIDDLE = {"eval": "model_evaluate_start", "inference-worker": "kafka_receive", "train-gru": "epoch_done"}
SHOWN = ("outcome", "decisions", "decided by", "performance-eval", "train-gru")
QUICK = {"EPOCHS": 3}
FREEZE_SECONDS = 12.0
"""Twice the session timeout of the embedded broker."""


@contextlib.contextmanager
def twice(stack: RunningStack, *services: str) -> Iterator[dict[str, list[Instance]]]:
    """Start a second replica of each service, and yield both once they share the partitions."""
    with contextlib.ExitStack() as further:
        pairs = {name: [launched(stack, name), further.enter_context(replica(stack, name))] for name in services}
        for name in services:
            for topic in SHARED.get(name, ()):
                wait_shared(pairs[name], topic)
        yield pairs


def upload_to(gateway: str, stack: RunningStack, identifier: str, swinging: tuple[Path, Path], **more: Any) -> str:
    """Upload through the gateway at this address; return the pipeline_run_id."""
    files = {part: (f"{part}.csv", path.read_bytes()) for part, path in zip(("train", "test"), swinging, strict=True)}
    key = {"x-api-key": (stack.home / "api-key").read_text().strip()}
    answer = httpx.post(
        f"{gateway}/datasets/{identifier}",
        files=files,
        data={"settings": json.dumps(more.get("settings", QUICK))},
        headers=key | more.get("headers", {}),
        timeout=PATIENCE,
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["pipeline_run_id"])


def follow(gateway: str, run_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the (event, data) pairs of a gateway's live stream of a run, up to the end of the run."""
    told = []
    with httpx.stream("GET", f"{gateway}/runs/{run_id}/events", timeout=PATIENCE) as answer:
        kind = ""
        for line in answer.iter_lines():
            if line.startswith("event:"):
                kind = line.removeprefix("event:").strip()
            elif line.startswith("data:"):
                told.append((kind, json.loads(line.removeprefix("data:"))))
                if kind == "end":
                    break
    return told


def once_each(
    stack: RunningStack, runs: list[dict[str, Any]], pairs: dict[str, list[Instance]]
) -> list[dict[str, Any]]:
    """Return a row of counts for each run: decisions, trainings, forecasts, and ids of published messages."""
    rows = []
    messages = whole_log.read_log(stack.state["kafka"], ["model-selected", "performance-eval", "model-training"])
    for run in runs:
        identifier, name = run["identifier"], run["pipeline_run_id"]
        of_run = [record for record in messages if record.content["pipeline_run_id"] == name]

        def count(service: str, event: str, run_id: str = name) -> list[int]:
            instances = pairs.get(service) or [launched(stack, service)]
            return [len(instance.events(event, run_id)) for instance in instances]

        rows.append(
            {
                "identifier": identifier,
                "outcome": run["outcome"],
                "seconds": run["elapsed_seconds"],
                "decisions": len(stack.decisions(identifier, name)),
                "decided by": count("eval", "promotion_decision"),
                **{trainer: count(trainer, "train_start") for trainer in INSTALLED},
                "forecast by": count("inference-worker", "forecast_done"),
                "logs": sum(name in path.name for path in files_below(stack.store / "inference-logs" / identifier)),
                "performance-eval": sum(record.topic == "performance-eval" for record in of_run),
                "decided ids": len(
                    {
                        record.content["event_id"]
                        for record in of_run
                        if record.topic == "model-selected" and record.content.get("stage") is None
                    }
                ),
                "model-training ids": len(
                    {record.content["event_id"] for record in of_run if record.topic == "model-training"}
                ),
            }
        )
    return rows


def test_two_of_each_service_do_everything_once(stack: RunningStack, swinging: tuple[Path, Path]) -> None:
    with twice(stack, "eval", "inference-worker", "train-gru", "train-lstm", "fastapi-app") as pairs:
        gateways = [instance.url for instance in pairs["fastapi-app"]]
        names = [
            identifier_for(pairs["train-gru"][number % 2], "training-data", f"twice-{number}") for number in range(4)
        ]
        with ThreadPoolExecutor(8) as pool:
            watched = upload_to(gateways[0], stack, names[0], swinging)
            streams = [pool.submit(follow, gateway, watched) for gateway in gateways]
            uploads = [
                pool.submit(upload_to, gateways[number % 2], stack, names[number], swinging) for number in (1, 2, 3)
            ]
            run_ids = [watched, *(upload.result() for upload in uploads)]
            runs = [stack.wait_decided(run_id, timeout=PATIENCE) for run_id in run_ids]
            told = [stream.result() for stream in streams]
        settled(stack, tuple(names))
        rows = once_each(stack, runs, pairs)
        report("two-of-each", rows)

        for row in rows:
            assert row["outcome"] == "promoted", row
            assert (row["decisions"], sum(row["decided by"]), row["logs"], row["performance-eval"]) == (1, 1, 1, 1), row
            assert all(sum(row[trainer]) == 1 for trainer in INSTALLED), row
            assert (row["decided ids"], row["model-training ids"], sum(row["forecast by"])) == (1, 3, 1), row
        for service in ("train-gru", "eval"):
            column = "decided by" if service == "eval" else service
            assert all(sum(row[column][at] for row in rows) for at in (0, 1)), f"both instances of {service} worked"
        for run_id in run_ids:
            first, second = (httpx.get(f"{gateway}/runs/{run_id}").json() | {"progress": None} for gateway in gateways)
            assert first == second
        for events in told:
            assert events[-1][0] == "end"
            assert events[-1][1]["outcome"] == "promoted"
            epochs = {(data["stage"], data["epoch"]) for kind, data in events if kind == "progress" and data["epoch"]}
            assert {stage for stage, _ in epochs} >= {"train-gru", "train-lstm"}, epochs


def test_one_idempotency_key_at_two_gateways_at_once_is_one_run(
    stack: RunningStack, swinging: tuple[Path, Path]
) -> None:
    rows = []
    with twice(stack, "fastapi-app") as pairs, ThreadPoolExecutor(4) as pool:
        gateways = [instance.url for instance in pairs["fastapi-app"]]
        for number in range(5):
            identifier = f"idempotent-{number}"
            key = {"idempotency-key": f"key-{number}"}
            together = threading.Barrier(4)

            def send(gateway: str, identifier: str = identifier, key: Any = key, together: Any = together) -> str:
                together.wait()
                return upload_to(gateway, stack, identifier, swinging, headers=key)

            answers = [pool.submit(send, gateway) for gateway in gateways * 2]
            run_ids = {answer.result() for answer in answers}
            listed = [
                {run["pipeline_run_id"] for run in httpx.get(f"{gateway}/runs?identifier={identifier}").json()["runs"]}
                for gateway in gateways
            ]
            rows.append(
                {"identifier": identifier, "requests": 4, "runs answered": len(run_ids), "runs": len(listed[0])}
            )
            assert listed[0] == listed[1] == run_ids
            assert len(run_ids) == 1
            with stack.gateway as client:
                client.post(f"/runs/{run_ids.pop()}/cancel")
    report("idempotency-at-two-gateways", rows)


def test_when_one_of_two_is_killed_in_the_middle_of_a_run_the_other_takes_over(
    stack: RunningStack, swinging: tuple[Path, Path]
) -> None:
    rows = [_killed(stack, swinging, service) for service in SHARED]
    rows.append(_gateway_killed(stack, swinging))
    report("one-of-two-killed", rows)
    assert all(row["decided after s"] < 60 for row in rows), rows


def _killed(stack: RunningStack, swinging: tuple[Path, Path], service: str) -> dict[str, Any]:
    topic = SHARED[service][-1]
    with twice(stack, service) as pairs:
        other, victim = pairs[service]
        identifier = identifier_for(victim, topic, f"killed-{service}")
        run_id = stack.upload(identifier, *swinging, settings=QUICK)
        eventually(
            partial(victim.events, MIDDLE[service], run_id), f"{service} is at work", timeout=PATIENCE, every=0.01
        )
        victim.signal(signal.SIGKILL)
        killed = time.time()
        run = stack.wait_decided(run_id, timeout=PATIENCE)
        settled(stack, (identifier,))
        taken = [line for line in other.events("kafka_receive", run_id) if _at(line["ts"]) > killed]
        (counts,) = once_each(stack, [run], pairs)
    assert run["outcome"] == "promoted", run["decision"]
    assert (counts["decisions"], counts["performance-eval"], counts["logs"]) == (1, 1, 1), counts
    assert {trained["status"] for trained in run["trained"].values()} == {"SUCCESS"}
    return {
        "killed": service,
        "at": MIDDLE[service],
        "taken over after s": _at(taken[0]["ts"]) - killed if taken else None,
        "decided after s": max(0.0, _at(run["outcome_details"]["at"]) - killed),
        **{name: counts[name] for name in SHOWN},
    }


def _gateway_killed(stack: RunningStack, swinging: tuple[Path, Path]) -> dict[str, Any]:
    """Kill the gateway that received an upload while a client follows the run; the second gateway continues."""
    with twice(stack, "fastapi-app") as pairs, ThreadPoolExecutor(1) as pool:
        other, victim = pairs["fastapi-app"]
        run_id = upload_to(victim.url, stack, "killed-gateway", swinging)
        stream = pool.submit(follow, victim.url, run_id)
        eventually(lambda: stack.run(run_id)["progress"] or None, "progress", timeout=PATIENCE)
        victim.signal(signal.SIGKILL)
        killed = time.time()
        with pytest.raises(httpx.TransportError):
            stream.result(timeout=PATIENCE)
        told = follow(other.url, run_id)
        assert told[-1][0] == "end"
        run = stack.wait_decided(run_id, timeout=PATIENCE)
        assert run["outcome"] == "promoted", run["decision"]
        decided = max(0.0, _at(run["outcome_details"]["at"]) - killed)
        return {"killed": "fastapi-app", "at": "progress", "decided after s": decided, "outcome": run["outcome"]}


def test_an_instance_that_sleeps_and_wakes_after_the_other_took_over_changes_nothing(
    stack: RunningStack, swinging: tuple[Path, Path]
) -> None:
    report("one-of-two-asleep", [_asleep(stack, swinging, service) for service in SHARED])


def _asleep(stack: RunningStack, swinging: tuple[Path, Path], service: str) -> dict[str, Any]:
    topic = SHARED[service][-1]
    with twice(stack, service) as pairs:
        sleeper = pairs[service][1]
        identifier = identifier_for(sleeper, topic, f"asleep-{service}")
        run_id = stack.upload(identifier, *swinging, settings=QUICK)
        eventually(
            partial(sleeper.events, MIDDLE[service], run_id), f"{service} is at work", timeout=PATIENCE, every=0.01
        )
        sleeper.freeze()
        asleep = time.monotonic()
        run = stack.wait_decided(run_id, timeout=PATIENCE)
        time.sleep(max(0.0, FREEZE_SECONDS - (time.monotonic() - asleep)))
        settled(stack, (identifier,))
        before = Kept.of(stack, (identifier,))
        sleeper.thaw()
        # While one replica was frozen, the other replica did the work. The thawed replica has lost its partitions, or
        # finds the results already written. Then it joins the consumer group again.
        wait_shared(pairs[service], topic)
        settled(stack, (identifier,))
        time.sleep(STAY_SECONDS)
        # Two differences are allowed. If both replicas trained, MLflow ("records") has the history of both trainings.
        # If both evaluated, the later scoreboard has another key that no decision names, and is removed with its run.
        changes = {
            name: words
            for name, words in before.changes(Kept.of(stack, (identifier,))).items()
            if "records" not in name and not ("/scoreboard-" in name and words.startswith("new"))
        }
        (counts,) = once_each(stack, [run], pairs)
    assert changes == {}
    assert run["outcome"] == "promoted", run["decision"]
    assert (counts["decisions"], sum(counts["decided by"]), counts["logs"]) == (1, 1, 1), counts
    return {"asleep": service, "at": MIDDLE[service], "changes": len(changes), **{name: counts[name] for name in SHOWN}}


def _at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
