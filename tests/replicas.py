"""Start further instances of a service, with the environment that the launcher gave to the first one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from embedded.ports import free_port
from tests.eventually import eventually
from tests.stack import ROOT, RunningStack

READY_SECONDS = 300
END_SECONDS = 40


@dataclass
class Instance:
    """One running instance of a service: the launcher's instance or a further one."""

    name: str
    url: str
    log: Path
    pid: int
    process: subprocess.Popen[bytes] | None = field(default=None)
    """The process of a further instance; None for the launcher's instance."""

    def events(self, event: str, run_id: str | None = None) -> list[dict[str, Any]]:
        """Return the log entries of one event, optionally of one run."""
        return [
            line
            for line in logged(self.log)
            if line.get("event") == event and (run_id is None or line.get("pipeline_run_id") == run_id)
        ]

    def metric(self, name: str) -> float:
        """Return the sum of all samples of a metric."""
        return metric(self.url, name)

    def children(self) -> list[psutil.Process]:
        """Return the child processes of the instance."""
        try:
            return psutil.Process(self.pid).children()
        except psutil.NoSuchProcess:
            return []

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def freeze(self) -> None:
        """Suspend the instance and its children, like a machine that swaps or sleeps."""
        for process in [psutil.Process(self.pid), *self.children()]:
            process.suspend()

    def thaw(self) -> None:
        for process in [psutil.Process(self.pid), *self.children()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def has_ended(self) -> bool:
        if self.process is not None:
            return self.process.poll() is not None
        return not psutil.pid_exists(self.pid)


def launched(stack: RunningStack, program: str) -> Instance:
    """Return the launcher's instance of a service."""
    return Instance(program, stack.state["health"][program], stack.home / "logs" / f"{program}.log", stack.pid(program))


@contextlib.contextmanager
def replica(
    stack: RunningStack, program: str, *, number: int = 2, module: str | None = None, **environment: str
) -> Iterator[Instance]:
    """Start a further instance of a service and wait until it is ready; end it after the block.

    Parameters
    ----------
    module : str, optional
        Module to run instead of the service's own, for example one with a trainer that hangs.
    environment : str
        Variables that replace the launcher's.
    """
    running = psutil.Process(stack.pid(program))
    port, name = free_port(), f"{program}-{number}"
    # The launcher started the program as ``python -m <module>``, so word 2 is the module.
    command = [sys.executable, "-m", module or running.cmdline()[2]]
    variables = {
        **running.environ(),
        "SERVICE_PORT": str(port),
        "CACHE_DIR": str(stack.home / name),
        **environment,
    }
    path = stack.home / "logs" / f"{name}-{port}.log"
    with path.open("ab") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    instance = Instance(name, f"http://127.0.0.1:{port}", path, process.pid, process)
    try:
        eventually(lambda: _ready(instance), f"{name} is ready", timeout=READY_SECONDS, every=0.2)
        yield instance
    finally:
        family = instance.children()
        with contextlib.suppress(psutil.NoSuchProcess):
            instance.thaw()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=END_SECONDS)
        finally:
            process.kill()
            process.wait()
            left = [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
            for one in left:
                one.kill()
        assert not left, f"left behind: {left}"


def owned_partitions(instance: Instance, topic: str) -> set[int]:
    """Return the partitions of a topic that an instance owns, according to its log."""
    owned: set[int] = set()
    for line in logged(instance.log):
        if line.get("event") == "version_start":  # the process is new and owns no partition yet
            owned = set()
        if line.get("event") in {"partitions_assigned", "partitions_revoked"} and "partitions" in line:
            named = {place.rpartition("/") for place in line["partitions"]}
            numbers = {int(number) for name, _, number in named if name == topic}
            owned = owned | numbers if line["event"] == "partitions_assigned" else owned - numbers
    return owned


def wait_shared(instances: list[Instance], topic: str, *, partitions: int = 6, timeout: float = 300) -> None:
    """Wait until each instance owns a partition of a topic, and each partition has one owner."""

    def shared() -> bool:
        sets = [owned_partitions(one, topic) for one in instances]
        assert all(sets), f"partitions of {topic}: {sets}"
        assert sorted(number for one in sets for number in one) == list(range(partitions)), f"{topic}: {sets}"
        return True

    eventually(shared, f"{topic} is shared", timeout=timeout, every=0.3)


def identifier_for(owner: Instance, topic: str, prefix: str) -> str:
    """Return an identifier whose messages this instance reads: the partition is the CRC-32 of the key, modulo 6."""
    partitions = owned_partitions(owner, topic)
    names = (f"{prefix}-{number}" for number in range(1000))
    return next(name for name in names if zlib.crc32(name.encode()) % 6 in partitions)


def logged(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON lines of a log."""
    for line in path.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def metric(url: str, name: str) -> float:
    """Return the sum of all samples of a metric."""
    samples = (line.rpartition(" ") for line in httpx.get(f"{url}/metrics", timeout=10).text.splitlines())
    return sum(float(value) for key, _, value in samples if key.partition("{")[0] == name)


def _ready(instance: Instance) -> bool:
    assert not instance.has_ended(), instance.log.read_text()[-2000:]
    try:
        return httpx.get(f"{instance.url}/readyz", timeout=5).is_success
    except httpx.HTTPError:
        return False
