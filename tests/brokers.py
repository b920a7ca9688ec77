"""Run brokers, and services that use them, as child processes of a test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from embedded.broker import BrokerSettings
from embedded.ports import free_port
from flts.contracts import ids
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import RawData
from flts.errors import BackendAwayError
from flts.messaging.kafka import Publisher, ensure_topics
from flts.settings import KafkaSettings
from tests.bus_service import Journal
from tests.eventually import eventually

ROOT = Path(__file__).parent.parent


def takes_connections(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(0.5)
        return client.connect_ex(("127.0.0.1", port)) == 0


def lives(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


class EmbeddedBroker:
    """The embedded mode's broker in a process of its own; its address stays the same after a restart."""

    def __init__(
        self, folder: Path, *, groups: str = "", prefixes: Sequence[str] = (), port: int = 0, advertised: str = ""
    ) -> None:
        self._folder = folder
        self._advertised = advertised
        self._groups = groups
        names = BrokerSettings().topic_names(groups.split(","))
        self._topics = ",".join(f"{prefix}{name}" for prefix in prefixes for name in names)
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.process = self._start()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.kill()
        self.process = self._start()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=10)

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "embedded.broker", "--port", str(self.port)]
        command += ["--groups", self._groups, "--topics", self._topics, "--advertised", self._advertised]
        with (self._folder / "broker.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        eventually(
            lambda: takes_connections(self.port) or process.poll() is not None, "a broker that takes connections"
        )
        assert process.poll() is None, (self._folder / "broker.log").read_text()
        return process


@dataclass
class Bus:
    """A broker for a test: publish messages, run services on it, read the results."""

    address: str
    folder: Path
    protocol: str = "consumer"
    prefix: str = field(default_factory=lambda: "")
    services: list[RunningService] = field(default_factory=list)
    _publisher: Publisher | None = None

    def settings(self) -> KafkaSettings:
        return KafkaSettings(
            kafka_bootstrap_servers=self.address,
            namespace_prefix=self.prefix,
            kafka_group_protocol="classic" if self.protocol == "classic" else "consumer",
        )

    def prepare(self, *groups: str) -> None:
        """Create the topics; retry as long as a starting service does."""

        def prepared() -> bool:
            try:
                ensure_topics(self.settings(), "tests", groups)
            except BackendAwayError as error:
                raise AssertionError(error.message) from error
            return True

        eventually(prepared, "the topics", timeout=60, every=0.5)

    @property
    def publisher(self) -> Publisher:
        if self._publisher is None:
            self._publisher = Publisher(self.settings(), "tests")
        return self._publisher

    def publish(self, identifier: str = "PobleSec", **told: str | float) -> RawData:
        event = raw_data(identifier, told)
        self.publisher.publish_all([event])
        return event

    def start(self, name: str = "bus", **environment: str) -> RunningService:
        service = RunningService(self, name, environment)
        self.services.append(service)
        return service

    def read(self, topic: str) -> list[dict[str, Any]]:
        """Return all records of a topic: key, value (parsed if it is JSON), headers."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": "reader", "fetch.wait.max.ms": 20})
        records = []
        try:
            full = f"{self.prefix}{topic}"
            for number in consumer.list_topics(timeout=5).topics[full].partitions:
                _, end = consumer.get_watermark_offsets(TopicPartition(full, number), timeout=5)
                if not end:
                    continue
                consumer.assign([TopicPartition(full, number, OFFSET_BEGINNING)])
                position = 0
                while position < end:
                    message = consumer.poll(5)
                    assert message is not None, f"{full}/{number} ends at {end}, nothing after {position}"
                    assert message.error() is None, message.error()
                    position = message.offset() + 1
                    records.append(
                        {
                            "key": message.key(),
                            "raw": message.value(),
                            "value": _json(message.value()),
                            "headers": dict(message.headers() or []),
                            "at": message.timestamp()[1] / 1000,
                        }
                    )
        finally:
            consumer.close()
        return records

    def committed(self, topic: str, group: str) -> int:
        """Return how many records of a topic a group has committed, over all partitions."""
        full = f"{self.prefix}{topic}"
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": f"{self.prefix}{group}"})
        try:
            parts = [TopicPartition(full, number) for number in consumer.list_topics(timeout=5).topics[full].partitions]
            return sum(max(0, part.offset) for part in consumer.committed(parts, timeout=5))
        finally:
            consumer.close()

    def close(self) -> None:
        for service in self.services:
            service.kill()
        if self._publisher is not None:
            self._publisher.close(0.5)


class RunningService:
    """`tests.bus_service`, or a service of the pipeline, in a process of its own."""

    def __init__(self, bus: Bus, name: str, environment: dict[str, str], *, module: str = "tests.bus_service") -> None:
        self.port = free_port()
        self.journal_path = Path(environment.pop("BUS_JOURNAL", str(bus.folder / f"{name}-{self.port}.journal")))
        self.journal_path.touch()
        self.log_path = bus.folder / f"{name}-{self.port}.log"
        self._environment = {
            **{key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")},
            "KAFKA_BOOTSTRAP_SERVERS": bus.address,
            "KAFKA_GROUP_PROTOCOL": bus.protocol,
            "NAMESPACE_PREFIX": bus.prefix,
            "STORE": "filesystem",
            "STORE_PATH": str(bus.folder / "store"),
            "SERVICE_HOST": "127.0.0.1",
            "SERVICE_PORT": str(self.port),
            "RETRY_BACKOFF_SECONDS": "0.1",
            "BUS_NAME": name,
            "BUS_JOURNAL": str(self.journal_path),
            **environment,
        }
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module], cwd=ROOT, env=self._environment, stdout=log, stderr=log
            )

    def until_ready(self, timeout: float = 60) -> RunningService:
        def ready() -> bool:
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.log_path.read_text()}"
            status, body = self.get("/readyz")
            assert status == 200, body
            return True

        eventually(ready, "a service that is ready", timeout=timeout)
        return self

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def metric(self, name: str) -> float:
        """Return the value of the sample whose name is written as in /metrics; 0 if there is none."""

        def page() -> str:
            status, text = self.get("/metrics")
            assert status == 200, text
            return text

        for line in eventually(page, "the metrics").splitlines():
            if line.startswith(f"{name} "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def journal(self, what: str | None = None, event: RawData | None = None) -> list[dict[str, Any]]:
        return [
            line
            for line in Journal(self.journal_path).read()
            if (what is None or line["what"] == what) and (event is None or line["event_id"] == event.event_id)
        ]

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = self.log_path.read_text(errors="replace").splitlines()
        entries = [entry for entry in map(_json, lines) if isinstance(entry, dict)]
        return [entry for entry in entries if entry.get("event") == event]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self, timeout: float = 20) -> int:
        return self.process.wait(timeout=timeout)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.ended()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


def raw_data(identifier: str = "PobleSec", told: Mapping[str, str | float] | None = None) -> RawData:
    """Return an event whose settings contain the action for `tests.bus_service`."""
    claim = ClaimCheck(bucket="raw-data", object_key=f"{identifier}/train.csv", size=1, sha256="0" * 64)
    return RawData(
        event_id=str(uuid.uuid4()),
        identifier=identifier,
        pipeline_run_id=ids.new_pipeline_run_id(),
        created_at=datetime.now(UTC),
        train=claim,
        settings=dict(told or {}),
    )


@contextlib.contextmanager
def embedded_bus(folder: Path, protocol: str = "consumer", groups: str = "bus") -> Iterator[tuple[Bus, EmbeddedBroker]]:
    broker = EmbeddedBroker(folder, groups=groups)
    bus = Bus(broker.address, folder, protocol)
    try:
        yield bus, broker
    finally:
        bus.close()
        broker.kill()


def steady(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Fail unless ``holds`` stays true for ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert holds(), what
        time.sleep(0.1)


def _json(data: bytes | str | None) -> Any:
    try:
        return json.loads(data or "null")
    except ValueError:
        return None
