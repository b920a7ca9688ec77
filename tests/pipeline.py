"""A running pipeline on any target, as the end-to-end tests use it: its HTTP APIs, its store and its logs."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from flts.settings import StoreSettings
from flts.storage.connect import open_store
from flts.storage.ports import ObjectStore
from flts.storage.run_store import RunStore
from flts.trainers import COMBINATION
from tests.eventually import eventually
from tests.trainers import LONG_TYPES

WORK = "flts.runtime.child"
"""Module of the child processes that do long work."""


class Pipeline(ABC):
    """A running pipeline, with requests to it and waits for its results.

    Attributes
    ----------
    state : dict
        Addresses: ``gateway_url``, ``inference_url``, ``mlflow_url``, ``kafka``, and ``health``, which has one URL for
        each program.
    """

    state: dict[str, Any]
    backends: tuple[str, ...] = ("kafka", "mlflow")
    """Backends that a test can kill, in addition to the programs of ``state["health"]``."""
    replicas = 1
    """Replicas of inference; with at least two, forecasts continue while one replica is away."""
    balanced = True
    """Whether a balancer sends a request that a killed replica did not answer to another replica."""
    deaths: tuple[str, ...] = ("kill",)
    """Ways in which a test can end a program: ``kill``, ``eviction``."""

    @property
    @abstractmethod
    def api_key(self) -> str:
        """API key of the gateway."""

    @property
    @abstractmethod
    def store_settings(self) -> StoreSettings:
        """Settings with which the test reaches the pipeline's store."""

    @abstractmethod
    def log(self, program: str) -> str:
        """Return the log of a program."""

    @abstractmethod
    def kill(self, program: str) -> None:
        """Kill a program or a backend, as a crash does; the target starts it again."""

    def evict(self, program: str) -> None:
        """Evict a replica of a program, as for a drained machine; a new replica replaces it."""
        msg = f"nobody evicts {program} on this target"
        raise AssertionError(msg)

    @abstractmethod
    def memory(self) -> list[dict[str, Any]]:
        """Return the memory of each program and its children: ``bytes`` now, and ``limit``, None without a limit.

        If the target reserves memory, ``request`` has the reserved bytes.
        """

    @property
    def gateway(self) -> httpx.Client:
        # The gateway uses plain HTTP, so there is no certificate to verify. With verify=True each new client would
        # still read all CA certificates, which takes longer than a request.
        return httpx.Client(
            base_url=self.state["gateway_url"], headers={"x-api-key": self.api_key}, timeout=60, verify=False
        )

    @property
    def inference(self) -> httpx.Client:
        return httpx.Client(base_url=self.state["inference_url"], timeout=30, verify=False)

    @cached_property
    def objects(self) -> ObjectStore:
        return open_store(self.store_settings)

    @property
    def run_store(self) -> RunStore:
        return RunStore(self.objects, self.store_settings)

    def log_events(self, program: str, event: str) -> list[dict[str, Any]]:
        found = []
        for line in self.log(program).splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and record.get("event") == event:
                found.append(record)
        return found

    def upload(
        self,
        identifier: str,
        train: Path,
        test: Path | None = None,
        *,
        settings: Mapping[str, object] | None = None,
        force: bool = False,
    ) -> str:
        """Upload a data set; return the pipeline_run_id."""
        files = {"train": ("train.csv", train.read_bytes(), "text/csv")}
        if test is not None:
            files["test"] = ("test.csv", test.read_bytes(), "text/csv")
        data = {"settings": json.dumps(dict(settings or {})), "force": str(force).lower()}
        with self.gateway as client:
            answer = client.post(f"/datasets/{identifier}", files=files, data=data)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["pipeline_run_id"])

    def start_training(self, identifier: str, train: Path, test: Path) -> str:
        """Upload a data set with a unique hash salt; return its pipeline_run_id once a trainer has begun."""
        run_id = self.upload(identifier, train, test, settings={"EPOCHS": 8, "EXTRA_HASH_SALT": identifier})
        self.wait_in_training(run_id)
        return run_id

    def run(self, run_id: str) -> dict[str, Any]:
        with self.gateway as client:
            answer = client.get(f"/runs/{run_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def wait_in_training(self, run_id: str) -> None:
        """Wait until a trainer of the run has begun."""

        def training() -> bool:
            return any(stage["stage"].startswith("train-") for stage in self.run(run_id)["stages"])

        eventually(training, f"training of {run_id} has begun", timeout=120, every=0.1)

    def wait_decided(self, run_id: str, *, timeout: float = 180, through_faults: bool = False) -> dict[str, Any]:
        """Wait for the run's outcome and return the run; `through_faults` ignores failed requests to the gateway."""

        def decided() -> dict[str, Any] | None:
            try:
                run = self.run(run_id)
            except (httpx.HTTPError, AssertionError):
                if through_faults:
                    return None
                raise
            return run if run.get("outcome") else None

        return eventually(decided, f"run {run_id} ends", timeout=timeout, every=0.3)

    def wait_served(self, identifier: str, run_id: str, *, timeout: float = 30) -> dict[str, Any]:
        """Wait until every inference replica serves the model of this run_id; return it as `/models` lists it."""

        def served() -> dict[str, Any] | None:
            # Each request may reach a different replica, and each replica loads a new champion at a different time. So
            # the test sends several requests, and each answer must name the run.
            seen = [self.champion(identifier) for _ in range(4 * self.replicas - 3)]
            return seen[0] if all(found and found.get("run_id") == run_id for found in seen) else None

        return eventually(served, f"{identifier} is served by {run_id}", timeout=timeout)

    def wait_refitted(self, run_id: str, *, timeout: float = 180) -> dict[str, Any]:
        """Wait until every replica serves the refit of a run that promoted a model, if it has one; return the run."""

        def refitted() -> dict[str, Any]:
            run = self.run(run_id)
            if run["decision"]["model_type"] == COMBINATION:
                return run  # no trainer refits a combination
            refit = run.get("champion_stages", {}).get("refitted", {})
            assert refit.get("decision") == "promoted", refit
            seen = [self.champion(run["identifier"]) for _ in range(4 * self.replicas - 3)]
            assert all(found and found.get("stage") == "refitted" for found in seen), seen
            return run

        return eventually(refitted, f"the refit of {run_id} is served", timeout=timeout)

    def champion(self, identifier: str) -> dict[str, Any] | None:
        """Return an identifier's champion as `/models` lists it; None if the replica that answers has not loaded it.

        A replica lists a champion with its pointer's fields only, as `loaded: false`, from its download to its load.
        """
        with self.inference as client:
            champions = client.get("/models").json()["models"]
        return next((dict(each) for each in champions if each["identifier"] == identifier and each["loaded"]), None)

    def question(self, identifier: str) -> dict[str, Any]:
        """Return a request for a forecast of the steps after the last row of a data set."""
        with self.gateway as client:
            tail = client.get(f"/datasets/{identifier}/tail").raise_for_status().json()
        return {**tail, "identifier": identifier, "inference_length": 6}

    def predict(self, body: Mapping[str, Any]) -> httpx.Response:
        with self.inference as client:
            return client.post("/predict", json=dict(body))

    def forecast(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a request for a forecast."""
        return dict(self.predict(body).raise_for_status().json())

    def post(self, path: str, **request: Any) -> dict[str, Any]:
        """Return the gateway's answer to a request."""
        with self.gateway as client:
            return dict(client.post(path, **request).raise_for_status().json())

    def questions(self) -> list[dict[str, Any]]:
        """Return one forecast request for each champion."""
        with self.inference as client:
            champions = client.get("/models").raise_for_status().json()["models"]
        assert all(champion["problem"] is None for champion in champions), champions
        return [self.question(champion["identifier"]) for champion in champions]

    def outcomes(self) -> dict[str, str]:
        """Return the outcome of each run that has one."""
        with self.gateway as client:
            runs = client.get("/runs", params={"limit": 200}).raise_for_status().json()["runs"]
        return {run["pipeline_run_id"]: run["outcome"] for run in runs if run["outcome"]}

    def dead_letters(self) -> int:
        """Return the number of dead letters of all groups."""
        with self.gateway as client:
            groups = client.get("/dead-letters").raise_for_status().json()["groups"]
        return sum(group["letters"] for group in groups)

    def assert_undisturbed(self, identifier: str, run_id: str) -> None:
        """Check that a run ended as without a fault: all models trained, one decision, a promotion."""
        run = self.run(run_id)
        assert run["outcome"] == "promoted", run["decision"]
        assert {run["trained"][kind]["status"] for kind in LONG_TYPES} == {"SUCCESS"}
        assert len(self.decisions(identifier, run_id)) == 1

    def decisions(self, identifier: str, run_id: str) -> list[str]:
        """Return the keys of a run's decisions; exactly one is expected."""
        bucket = self.store_settings.bucket_pipeline_runs
        return [info.key for info in self.objects.list(bucket, f"{identifier}/{run_id}/decision")]


class FreezablePipeline(Pipeline):
    """A running pipeline whose processes a test can suspend and resume."""

    @abstractmethod
    def freeze(self, program: str) -> None:
        """Suspend a program and its child processes: it keeps its connections and does not answer."""

    @abstractmethod
    def thaw(self, program: str) -> None:
        """Resume a suspended program."""

    @abstractmethod
    def freeze_work(self, program: str) -> None:
        """Suspend the child processes that do a program's long work; the program itself continues."""
