"""A service that does what a message's settings state, as a process of its own: ``python -m tests.bus_service``.

Each step writes a line to a journal on disk, so a test sees the steps of a killed process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flts.contracts import ids, topics
from flts.contracts.events import Event, ModelSelected, RawData
from flts.errors import BackendAwayError, FltsError, PreconditionFailedError, RejectedError, RetryableError
from flts.observability.metrics import default_metrics
from flts.processes.replayed import is_replayed
from flts.runtime.adapters import Adapters, connect
from flts.runtime.runner import run
from flts.service import Handler, Progress, Service, Subscription, Tick
from flts.settings import KafkaSettings, ServiceSettings, StoreSettings
from flts.storage.claims import read_claimed
from tests import fixed_reader

EFFECTS = "effects/"
"""Prefix of the objects that the action ``take`` stores, one for each event."""


class BusSettings(ServiceSettings, KafkaSettings, StoreSettings):
    bus_name: str = "bus"
    bus_mode: str = "group"
    """``group``, ``all`` or ``child``."""
    bus_journal: Path
    bus_tick: bool = False
    bus_child: str = "tests.bus_service:make_handler"
    bus_fixed_reader: Path | None = None
    """Folder of the records that `tests.fixed_reader` accepts."""


class Journal:
    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, what: str, event: Event | None = None, **more: Any) -> None:
        line = {
            "what": what,
            "event_id": event.event_id if event else None,
            "pid": os.getpid(),
            "at": time.time(),
            **more,
        }
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, json.dumps(line).encode() + b"\n")
        os.close(descriptor)

    def read(self) -> list[dict[str, Any]]:
        text = self._path.read_text()
        # The service may still be writing the last line, so text after the last newline is left out.
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


class DoAsTold:
    """Does what the message's settings state: the action ``do``, with ``seconds`` and ``times``."""

    def __init__(self, settings: BusSettings, adapters: Adapters) -> None:
        self._settings = settings
        self._store = adapters.store
        self._journal = Journal(settings.bus_journal)

    def __call__(self, event: RawData, progress: Progress) -> Sequence[Event]:  # noqa: C901 - a case for each order
        told = event.settings
        self._journal.write("begin", event, replayed=is_replayed())
        progress("bus", "running", epoch=1, epochs=2)
        default_metrics().predictions.labels(outcome=str(told.get("do", "ok"))).inc()
        match told.get("do", "ok"):
            case "fail":
                self._fail(event, RuntimeError("a bug"))
            case "retry":
                self._fail(event, RetryableError("not now", retry_after_seconds=0.1))
            case "away":
                self._fail(event, BackendAwayError("the store is away", retry_after_seconds=0.1))
            case "reject":
                msg = "no such column"
                raise RejectedError(msg, code="no_column", field="down")
            case "die":
                self._fail(event, None)
            case "hang":
                self._hang(event)
            case "work":
                self._take_time(float(told["seconds"]), progress)
            case "grow":
                helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
                self._journal.write("helper", event, helper=helper.pid)
                self._take_time(float(told["seconds"]), progress)
            case "take":
                self._take(event)
            case "wait":
                while not Path(str(told["until"])).exists():
                    time.sleep(0.05)
        self._journal.write("end", event)
        return [selected(event)]

    def _fail(self, event: RawData, error: Exception | None) -> None:
        if self._begun_before(event) < int(event.settings.get("times", 1_000)):
            if error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            else:
                raise error

    def _hang(self, event: RawData) -> None:
        if self._begun_before(event) < int(event.settings.get("times", 1_000)):
            wait_for_what_never_comes(self._journal)

    def _take_time(self, seconds: float, progress: Progress) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(0.05)
            progress("bus", "running", epoch=2, epochs=2)

    def _take(self, event: RawData) -> None:
        data = read_claimed(self._store, event.train)
        try:
            self._store.put(self._settings.bucket_processed_data, f"{EFFECTS}{event.event_id}", data, create_only=True)
        except PreconditionFailedError:
            return
        self._journal.write("effect", event)

    def _begun_before(self, event: RawData) -> int:
        lines = self._journal.read()
        return sum(line["what"] == "begin" and line["event_id"] == event.event_id for line in lines) - 1


def wait_for_what_never_comes(journal: Journal) -> None:
    journal.write("hangs")
    time.sleep(600)


def selected(event: RawData) -> ModelSelected:
    return ModelSelected(
        event_id=ids.derived_event_id(event.event_id, "selected"),
        identifier=event.identifier,
        pipeline_run_id=event.pipeline_run_id,
        created_at=datetime.now(UTC),
        decision="kept",
    )


def make_handler(settings: BusSettings, adapters: Adapters) -> Handler:
    assert adapters.has_store
    Journal(settings.bus_journal).write("child ready")
    return DoAsTold(settings, adapters)


def exhausted(event: Event, error: FltsError | None, message: str) -> Sequence[Event]:
    assert isinstance(event, RawData)
    reasons = [message, error.code if error else "bug"]
    return [selected(event).model_copy(update={"decision": "refused", "reasons": reasons})]


def build_service(settings: BusSettings, adapters: Adapters) -> Service:
    in_child = settings.bus_mode == "child"
    subscription = Subscription(
        (topics.RAW_DATA,),
        mode="all" if settings.bus_mode == "all" else "group",
        handler=None if in_child else DoAsTold(settings, adapters),
        child=settings.bus_child if in_child else None,
        on_exhausted=exhausted,
    )
    journal = Journal(settings.bus_journal)

    def tick() -> Sequence[Event]:
        journal.write("tick")
        return []

    return Service(
        name=settings.bus_name,
        subscriptions=(subscription,),
        ticks=(Tick("journal", 0.2, tick),) if settings.bus_tick else (),
        on_start=(lambda: journal.write("started"),),
        on_stop=(lambda: journal.write("stopped"),),
    )


def main() -> int:
    settings = BusSettings.load()
    if settings.bus_fixed_reader is not None:
        fixed_reader.install(settings.bus_fixed_reader)
    adapters = connect(settings)
    return run(build_service(settings, adapters), settings, adapters)


if __name__ == "__main__":
    raise SystemExit(main())
