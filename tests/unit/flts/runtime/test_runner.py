"""The start and the end of a service, as an orchestrator observes them."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.ports import free_port
from tests.brokers import ROOT, Bus, embedded_bus, lives
from tests.eventually import eventually


@pytest.fixture(scope="module")
def broker_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded_bus(tmp_path_factory.mktemp("broker")) as (bus, _):
        yield bus.address


@pytest.fixture
def bus(broker_address: str, tmp_path: Path) -> Iterator[Bus]:
    bus = Bus(broker_address, tmp_path)
    yield bus
    bus.close()


def test_a_service_answers_its_paths_ticks_and_ends_in_order_when_asked(bus: Bus) -> None:
    service = bus.start(BUS_TICK="true", FLTS_COMMIT="abc").until_ready()

    assert service.get("/healthz")[0] == 200
    assert service.metric('flts_build_info{commit="abc",service="bus",version="0.1.0"}') == 1
    assert service.metric('flts_backend_up{backend="kafka"}') == 1
    eventually(lambda: len(service.journal("tick")) > 1, "two ticks")
    assert service.journal("started")[0]["at"] < service.journal("tick")[0]["at"]
    service.signal(signal.SIGINT)

    assert service.ended() == 0
    assert service.journal()[-1]["what"] == "stopped"
    assert [line["reason"] for line in service.logged("service_stopped")] == ["SIGINT"]
    assert service.logged("version_start")[0]["commit"] == "abc"


def test_a_taken_port_is_named(bus: Bus) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])

        service = bus.start(SERVICE_PORT=port)

        assert service.ended() == 1
    assert f"SERVICE_PORT: 127.0.0.1:{port}" in service.logged("service_stopped")[0]["reason"]


def test_a_broker_that_is_not_there_is_named_with_its_address_in_time(tmp_path: Path) -> None:
    bus = Bus(f"127.0.0.1:{free_port()}", tmp_path)

    service = bus.start(BACKEND_CHECK_SECONDS="1")
    code = service.ended()

    assert code == 1
    reason = service.logged("service_stopped")[0]["reason"]
    assert f"kafka {bus.address}: 'metadata request' did not succeed within 1 s" in reason
    assert not service.journal("started")


def test_a_broker_that_accepts_and_never_answers_is_named_too(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        bus = Bus(f"127.0.0.1:{silent.getsockname()[1]}", tmp_path)

        service = bus.start(BACKEND_CHECK_SECONDS="1")

        assert service.ended() == 1
    assert bus.address in service.logged("service_stopped")[0]["reason"]


def test_a_service_that_waits_for_a_backend_is_alive_but_not_ready_and_can_be_stopped(tmp_path: Path) -> None:
    service = Bus(f"127.0.0.1:{free_port()}", tmp_path).start(BACKEND_CHECK_SECONDS="60")
    eventually(lambda: service.get("/healthz")[0] == 200, "a living service")

    status, body = service.get("/readyz")
    assert status == 503
    assert "backends" in body

    assert service.stop() == 0


def test_a_child_process_that_cannot_start_ends_the_service(bus: Bus) -> None:
    service = bus.start(BUS_MODE="child", BUS_CHILD="tests.no_such_module:make")

    assert service.ended() == 1
    assert "did not start: exit code 1" in service.logged("service_stopped")[0]["reason"]


def test_no_child_outlives_a_killed_service(bus: Bus) -> None:
    service = bus.start(BUS_MODE="child").until_ready()
    child = service.journal("child ready")[0]["pid"]
    assert lives(child)

    service.kill()

    eventually(lambda: not lives(child), "the child's end")


def test_settings_that_are_missing_or_wrong_are_all_named_before_anything_starts(bus: Bus) -> None:
    service = bus.start(KAFKA_BOOTSTRAP_SERVERS="", TOPIC_PARTITIONS="none")

    assert service.ended() == 2
    text = service.log_path.read_text()
    assert "KAFKA_BOOTSTRAP_SERVERS: is required" in text
    assert "TOPIC_PARTITIONS" in text


@pytest.mark.parametrize("module", ["flts.runtime.adapters", "flts.runtime.runner", "flts.messaging.consumer"])
def test_importing_brings_in_no_store_table_or_tracker(module: str) -> None:
    heavy = ("boto3", "pyarrow", "mlflow", "pandas", "torch", "fastapi")
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"

    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "[]"
