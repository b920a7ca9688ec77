"""The embedded pipeline as the end-to-end tests start it: real processes, free ports, an empty folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from embedded.processes import end_with_parent
from embedded.settings import EmbeddedSettings
from flts.settings import StoreSettings
from tests.eventually import eventually
from tests.pipeline import WORK, FreezablePipeline
from tests.stores import folder_settings

ROOT = Path(__file__).resolve().parent.parent
PORTS = tuple(name.upper() for name in EmbeddedSettings.model_fields if name.endswith("_port"))
SMALL = {"EPOCHS": "4", "HIDDEN_SIZE": "16", "NUM_LAYERS": "1", "BATCH_SIZE": "64"}
UPLOAD_BYTES = 48 * 2**20
VALIDATION_BYTES = 192 * 2**20
"""Bytes; a test can reach these limits within seconds."""
LIMITS = {"MAX_UPLOAD_BYTES": str(UPLOAD_BYTES), "VALIDATION_MEMORY_BYTES": str(VALIDATION_BYTES)}
READY_SECONDS = 240
"""Seconds; an idle machine needs 15 s, and more just after it booted, because no page is in memory."""


@dataclass
class RunningStack(FreezablePipeline):
    """The embedded pipeline, started for a test."""

    process: subprocess.Popen[str]
    home: Path
    state: dict[str, Any]

    @property
    def api_key(self) -> str:
        return (self.home / "api-key").read_text().strip()

    @property
    def store_settings(self) -> StoreSettings:
        return folder_settings(self.store)

    @property
    def store(self) -> Path:
        return self.home / "store"

    @property
    def scratch(self) -> Path:
        """Folder of the programs' temporary files."""
        return self.home / "scratch"

    def log(self, program: str) -> str:
        return (self.home / "logs" / f"{program}.log").read_text()

    def pid(self, program: str) -> int:
        """Return the process id of a program, which changes when the launcher restarts the program."""
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

    def memory(self) -> list[dict[str, Any]]:
        rows = []
        for program in [*self.state["health"], *self.backends]:
            running = psutil.Process(self.pid(program))
            used = 0
            for process in [running, *running.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    used += process.memory_info().rss
            rows.append({"program": program, "bytes": used, "limit": None})
        return rows

    def kill(self, program: str) -> None:
        os.kill(self.pid(program), signal.SIGKILL)

    def freeze(self, program: str) -> None:
        for process in self._family(program):
            process.suspend()

    def thaw(self, program: str) -> None:
        for process in self._family(program):
            process.resume()

    def freeze_work(self, program: str) -> None:
        for child in psutil.Process(self.pid(program)).children():
            if WORK in child.cmdline():
                child.suspend()

    def _family(self, program: str) -> list[psutil.Process]:
        one = psutil.Process(self.pid(program))
        return [one, *one.children(recursive=True)]


@contextmanager
def running_stack(home: Path, *, code: Path = ROOT, **environment: str) -> Iterator[RunningStack]:
    """Start `python -m embedded up` on free ports; end it after the block and assert that no process is left.

    Parameters
    ----------
    home : Path
        ``FLTS_HOME``.
    code : Path
        Source tree to run; Python imports its packages instead of the installed ones.
    environment : str
        Settings.
    """
    (home / "scratch").mkdir(parents=True, exist_ok=True)
    output = (home / "launcher.log").open("a+")
    variables = {**os.environ, **dict.fromkeys(PORTS, "0"), "FLTS_HOME": str(home), "TMPDIR": str(home / "scratch")}
    variables |= {"START_SECONDS": str(READY_SECONDS)} | environment
    process = subprocess.Popen(
        [sys.executable, "-m", "embedded", "up"],
        cwd=code,
        env=variables,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=end_with_parent,  # noqa: PLW1509 - the pipeline ends even if pytest's worker is killed
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
        # A service's child processes end shortly after the service. So the test waits up to 10 s before it counts a
        # process as left behind.
        _, left = psutil.wait_procs(family, timeout=10)
        left = [one for one in left if not _is_zombie(one)]
        for one in left:
            one.kill()
        assert not left, f"left behind: {left}"


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


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
    """Return the seconds of the monotonic clock."""
    return time.monotonic()
