"""The objects in the store and the records in MLflow at one moment, in a form that can be compared."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from flts.contracts.champion_stage import REFITTED
from tests import whole_log
from tests.eventually import eventually
from tests.files_below import files_below
from tests.stack import RunningStack
from tests.trainers import INSTALLED

LASTING = (
    "raw-data",
    "processed-data",
    "model-bundles",
    "model-promotion",
    "pipeline-runs",
    "inference-logs",
)
LEASES = "pipeline-runs/_leases/"
"""Leases, which ticks renew without any message."""


@dataclass(frozen=True)
class Kept:
    """Everything that a pipeline keeps of some identifiers at one moment."""

    store: dict[str, str]
    records: dict[str, Any]
    runs: dict[str, Any]
    forecasts: dict[str, Any]
    trainings: dict[str, int]

    @classmethod
    def of(cls, stack: RunningStack, identifiers: tuple[str, ...]) -> Kept:
        with stack.gateway as gateway:
            names = [
                run["pipeline_run_id"]
                for identifier in identifiers
                for run in gateway.get("/runs", params={"identifier": identifier, "limit": 200}).json()["runs"]
            ]
            # A run's progress is in the gateway's memory and not in the store, so it is not compared.
            runs = {name: gateway.get(f"/runs/{name}").json() | {"progress": None} for name in names}
            forecasts = {}
            for identifier in sorted({run["identifier"] for run in runs.values() if run["outcome"] == "promoted"}):
                body = gateway.get(f"/datasets/{identifier}/tail", params={"rows": 40}).json()
                asked = body | {"identifier": identifier, "inference_length": 12}
                forecasts[identifier] = eventually(
                    partial(_forecast, stack, asked), f"{identifier} is served", timeout=120
                )
        store = {
            name: digest
            for name, digest in stored(stack).items()
            if any(part in identifiers for part in Path(name).parts) or name.startswith("pipeline-runs/_")
        }
        records = recorded(stack, *(name for name in identifiers if name in forecasts))
        trainings = {name: len(stack.log_events(name, "train_start")) for name in INSTALLED}
        return cls(store, records, runs, forecasts, trainings)

    def changes(self, other: Kept) -> dict[str, str]:
        found = {}
        for what in ("store", "records", "runs", "forecasts", "trainings"):
            found |= {
                f"{what}: {name}": words
                for name, words in differences(getattr(self, what), getattr(other, what)).items()
            }
        return found


def _forecast(stack: RunningStack, body: dict[str, Any]) -> dict[str, Any]:
    answer = stack.predict(body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def settled(stack: RunningStack, identifiers: tuple[str, ...]) -> None:
    """Wait until every record is read, no run or forecast of these identifiers is open, the spool is empty, and the
    replicas serve their champions."""
    whole_log.wait_read(stack.state["kafka"])

    def done() -> bool:
        left = [
            str(path)
            for folder in ("_open", "_forecasts", "_spool")
            for path in files_below(stack.store / "pipeline-runs" / folder)
            if (folder == "_spool" or path.name in identifiers)
        ]
        assert not left, left
        return True

    eventually(done, "nothing is open", timeout=300, every=0.3)
    for identifier in identifiers:
        # A provisional champion may still be served shortly after the decision.
        pointer = stack.run_store.pointers.current(identifier)
        if pointer is not None:
            stack.wait_served(identifier, str(pointer[0]["run_id"]), timeout=60)
            if pointer[0].get("stage") == REFITTED:
                stack.wait_refitted(str(pointer[0]["pipeline_run_id"]))


def stored(stack: RunningStack) -> dict[str, str]:
    """Return the SHA-256 of every lasting object by bucket and key."""
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for bucket in LASTING
        for path in sorted(files_below(stack.store / bucket))
        if not (name := str(path.relative_to(stack.store))).startswith(LEASES)
        and path.suffix != ".jsonl"  # the forecast logs contain the requests of the test itself, so they always differ
    }


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, str]:
    """Return the names that are new, gone or changed, with the difference as text."""
    names = sorted(before.keys() | after.keys())
    words = {name: _difference(before.get(name), after.get(name)) for name in names}
    return {name: word for name, word in words.items() if word}


def recorded(stack: RunningStack, *identifiers: str) -> dict[str, Any]:
    """Return the MLflow runs of these identifiers with all values of their metrics, their versions and the alias."""
    with httpx.Client(base_url=f"{stack.state['mlflow_url']}/api/2.0/mlflow", timeout=30) as api:
        found: dict[str, Any] = {}
        for identifier in identifiers:
            found |= _runs(api, identifier)
            name = {"filter": f"name = '{identifier}'"}
            versions = api.get("/model-versions/search", params=name).json().get("model_versions", [])
            found[f"{identifier}: versions"] = sorted(
                (version["version"], version["run_id"], version["last_updated_timestamp"]) for version in versions
            )
            alias = api.get("/registered-models/alias", params={"name": identifier, "alias": "champion"}).json()
            found[f"{identifier}: champion"] = alias.get("model_version", {}).get("version")
        return found


def _runs(api: httpx.Client, identifier: str) -> dict[str, Any]:
    number = api.get("/experiments/get-by-name", params={"experiment_name": identifier}).json()["experiment"]
    runs = api.post("/runs/search", json={"experiment_ids": [number["experiment_id"]]}).json().get("runs", [])
    found: dict[str, Any] = {}
    for run in runs:
        name = f"{identifier}: run {run['info']['run_id']}"
        found[f"{name} info"] = run["info"]
        found[f"{name} tags"] = sorted((tag["key"], tag["value"]) for tag in run["data"].get("tags", []))
        found[f"{name} params"] = sorted((one["key"], one["value"]) for one in run["data"].get("params", []))
        for metric in run["data"].get("metrics", []):
            asked = {"run_id": run["info"]["run_id"], "metric_key": metric["key"], "max_results": 10_000}
            history = api.get("/metrics/get-history", params=asked).json().get("metrics", [])
            found[f"{name} {metric['key']}"] = sorted((one["step"], one["timestamp"], one["value"]) for one in history)
    return found


def _difference(before: Any, after: Any) -> str:
    if before == after:
        return ""
    if before is None:
        return f"new: {str(after)[:200]}"
    return "gone" if after is None else f"{str(before)[:200]} -> {str(after)[:200]}"
