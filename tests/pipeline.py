"""A running pipeline as a journey sees it, wherever it runs: by HTTP, by its store, by its logs."""

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
from flts.storage.runs import RunStore
from tests.eventually import eventually


class Pipeline(ABC):
    """Ways to ask a running pipeline things.

    Attributes
    ----------
    state : dict
        Where it answers: ``gateway_url``, ``inference_url``, ``mlflow_url``, ``kafka``, and ``health``, an address per
        program.
    """

    state: dict[str, Any]
    backends: tuple[str, ...] = ("kafka", "mlflow")
    """What can be killed beside the programs of ``state["health"]``."""
    replicas = 1
    """Of inference; with more than one, forecasts go on while one of them is away."""

    @property
    @abstractmethod
    def api_key(self) -> str:
        """The gateway's key."""

    @property
    @abstractmethod
    def store_settings(self) -> StoreSettings:
        """How its store is reached from here."""

    @abstractmethod
    def log(self, program: str) -> str:
        """Everything that a program has said."""

    @abstractmethod
    def kill(self, program: str) -> None:
        """Kill a program, or a backend, as a crash does; whoever watches over it starts it again."""

    @abstractmethod
    def memory(self) -> list[dict[str, Any]]:
        """Return each program's ``bytes`` now, its children's among them, and its ``limit``: None where it has none."""

    @property
    def gateway(self) -> httpx.Client:
        # Plain HTTP: without verify=False each client reads all certificates, which costs more than the request.
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
    def runs(self) -> RunStore:
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

    def run(self, run_id: str) -> dict[str, Any]:
        with self.gateway as client:
            answer = client.get(f"/runs/{run_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def wait_decided(self, run_id: str, *, timeout: float = 180) -> dict[str, Any]:
        """Return the run once it has its outcome."""
        return eventually(
            lambda: run if (run := self.run(run_id)).get("outcome") else None,
            f"run {run_id} ends",
            timeout=timeout,
            every=0.3,
        )

    def wait_served(self, identifier: str, run_id: str, *, timeout: float = 30) -> dict[str, Any]:
        """Return the champion of this identifier once inference serves the one that this model run made."""

        def served() -> dict[str, Any] | None:
            with self.inference as client:
                champions = client.get("/models").json()["models"]
            for champion in champions:
                if champion["identifier"] == identifier and champion.get("run_id") == run_id:
                    return dict(champion)
            return None

        return eventually(served, f"{identifier} is served by {run_id}", timeout=timeout)

    def predict(self, body: Mapping[str, Any]) -> httpx.Response:
        with self.inference as client:
            return client.post("/predict", json=dict(body))

    def decisions(self, identifier: str, run_id: str) -> list[str]:
        """Return the keys of a run's decisions; there is to be one."""
        bucket = self.store_settings.bucket_pipeline_runs
        return [info.key for info in self.objects.list(bucket, f"{identifier}/{run_id}/decision")]
