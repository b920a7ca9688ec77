"""The embedded pipeline as the end-to-end tests start it: real processes, free ports, an empty folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from embedded.settings import EmbeddedSettings
from tests.eventually import eventually

ROOT = Path(__file__).resolve().parent.parent
PORTS = tuple(name.upper() for name in EmbeddedSettings.model_fields if name.endswith("_port"))
SMALL = {"EPOCHS": "4", "HIDDEN_SIZE": "16", "NUM_LAYERS": "1", "BATCH_SIZE": "64"}
UPLOAD_BYTES = 48 * 2**20
VALIDATION_BYTES = 192 * 2**20
"""Limits low enough that a test of seconds reaches them."""
LIMITS = {"MAX_UPLOAD_BYTES": str(UPLOAD_BYTES), "VALIDATION_MEMORY_BYTES": str(VALIDATION_BYTES)}
READY_SECONDS = 240
"""15 s where nothing else runs; a machine that has just begun reads each page of memory for the first time."""


@dataclass
class RunningStack:
    """A started pipeline and short ways to ask it things."""

    process: subprocess.Popen[str]
    home: Path
    state: dict[str, Any]

    @property
    def gateway(self) -> httpx.Client:
        key = (self.home / "api-key").read_text().strip()
        # Plain HTTP: without verify=False each client reads all certificates, which costs more than the request.
        return httpx.Client(base_url=self.state["gateway_url"], headers={"x-api-key": key}, timeout=60, verify=False)

    @property
    def inference(self) -> httpx.Client:
        return httpx.Client(base_url=self.state["inference_url"], timeout=30, verify=False)

    @property
    def store(self) -> Path:
        return self.home / "store"

    @property
    def scratch(self) -> Path:
        """Where its programs put files for a moment."""
        return self.home / "scratch"

    def log(self, program: str) -> str:
        return (self.home / "logs" / f"{program}.log").read_text()

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

    def pid(self, program: str) -> int:
        """The program's process now: the launcher starts it again where it died."""
        module = {
            "preprocess": "preprocess_container",
            "eval": "eval_container",
            "inference": "inference_container",
            "inference-worker": "inference_container.worker",
            "fastapi-app": "gateway_container",
            "kafka": "embedded.broker",
            "mlflow": "embedded.mlflow_server",
        }.get(program, "nonML_container" if program.startswith("nonml") else "train_container")
        model_type = program.rpartition("-")[2].upper() if program.startswith(("train-", "nonml-")) else None
        for child in psutil.Process(self.process.pid).children():
            try:
                line, environment = child.cmdline(), child.environ()
            except psutil.Error:
                continue
            if module in line and (model_type is None or environment.get("MODEL_TYPE") == model_type):
                return child.pid
        msg = f"{program} does not run"
        raise AssertionError(msg)

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

    def decisions(self, identifier: str, run_id: str) -> list[Path]:
        return list((self.store / "pipeline-runs" / identifier / run_id).glob("decision*.json"))


@contextmanager
def running_stack(home: Path, **environment: str) -> Iterator[RunningStack]:
    """Start `python -m embedded up` on free ports and end it, asserting that nothing is left behind."""
    (home / "scratch").mkdir(parents=True, exist_ok=True)
    output = (home / "launcher.log").open("a+")
    variables = {**os.environ, **dict.fromkeys(PORTS, "0"), "FLTS_HOME": str(home), "TMPDIR": str(home / "scratch")}
    variables |= environment
    process = subprocess.Popen(
        [sys.executable, "-m", "embedded", "up"],
        cwd=ROOT,
        env=variables,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        stack = RunningStack(
            process, home, eventually(lambda: _state(process, home), "the stack starts", timeout=READY_SECONDS)
        )
        yield stack
    finally:
        family = _family(process.pid)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=60)
        finally:
            if process.poll() is None:
                process.kill()
            output.close()
        left = [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
        for one in left:
            one.kill()
        assert not left, f"left behind: {left}"


def _family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _state(process: subprocess.Popen[str], home: Path) -> dict[str, Any] | None:
    assert process.poll() is None or _fail(home), "the launcher ended"
    path = home / "embedded.json"
    if not path.exists():
        return None
    state = json.loads(path.read_text())
    return dict(state) if state["pid"] == process.pid else None


def _fail(home: Path) -> bool:
    raise RuntimeError((home / "launcher.log").read_text()[-2000:])


def now() -> float:
    """Seconds of a clock that only goes forward."""
    return time.monotonic()
