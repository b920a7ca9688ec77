"""A gateway for tests, on a store in a folder and with a broker that can be made unavailable."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import Event, RunProgress
from flts.contracts.ids import new_pipeline_run_id
from flts.dead_letters.accounting import Accounting
from flts.dead_letters.replay import Replayer, ReplayMarks
from flts.errors import BackendAwayError
from flts.housekeeping.deletion import Deletion
from flts.housekeeping.janitor import Janitor
from flts.messaging.kafka import RawHeaders
from flts.observability.metrics import Metrics
from flts.storage.filesystem import FilesystemStore
from flts.storage.operations import Operations
from flts.storage.run_store import RunStore
from gateway_container.api import create_app
from gateway_container.checking import check_files, order_of
from gateway_container.context import Gateway
from gateway_container.dead_letters import DeadLetterDesk, check_run
from gateway_container.deleting import Deleting
from gateway_container.handler import WatchRuns
from gateway_container.intake import Intake
from gateway_container.live import LiveRuns
from gateway_container.outbox import Outbox
from gateway_container.proxy import InferenceProxy
from gateway_container.queries import Queries
from gateway_container.settings import GatewaySettings
from gateway_container.tail import Tails
from tests.dead_letters import LettersInMemory
from tests.eventually import eventually

KEY = "a-key-for-the-tests-only"
BUCKETS = ("raw-data", "processed-data", "model-bundles", "model-promotion", "pipeline-runs", "inference-logs")


class Broker:
    """Keeps events in memory; refuses them while ``away`` is true."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.records: list[tuple[str, bytes | None, bytes | None, RawHeaders]] = []
        self.away = False
        self.hold = threading.Event()
        """While this is cleared, publishing waits for it, 10 s at most."""
        self.hold.set()
        self._lock = threading.Lock()

    def publish(self, events: Sequence[Event]) -> None:
        self.hold.wait(10)
        if self.away:
            msg = "the brokers did not acknowledge in time"
            raise BackendAwayError(msg, code="kafka_away")
        with self._lock:
            self.events.extend(events)

    def publish_record(self, topic: str, key: bytes | None, value: bytes | None, headers: RawHeaders) -> None:
        if self.away:
            msg = "the brokers did not acknowledge in time"
            raise BackendAwayError(msg, code="kafka_away")
        with self._lock:
            self.records.append((topic, key, value, headers))


@dataclass
class GatewayUnderTest:
    settings: GatewaySettings
    store: FilesystemStore
    run_store: RunStore
    broker: Broker
    letters: LettersInMemory
    gateway: Gateway
    app: FastAPI
    now: float = 0.0
    handler: WatchRuns = field(init=False)

    def __post_init__(self) -> None:
        self.handler = WatchRuns(self.gateway.live)

    def client(self, *, key: str | None = KEY) -> TestClient:
        headers = {"x-api-key": key} if key is not None else {}
        return TestClient(self.app, headers=headers, raise_server_exceptions=False)

    def hear(self, event: Event) -> None:
        """Let the gateway receive an event from the topics."""
        assert self.handler(event, lambda *_, **__: None) == ()

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        return [info.key for info in self.store.list(bucket, prefix)]


class ChecksHere:
    """Checks files in the tests' process, so that no child process has to start for each gateway."""

    def check(self, train: Path, test: Path | None, settings: GatewaySettings) -> dict[str, Any]:
        order = json.loads(json.dumps(order_of(train, test, settings)))
        answer: dict[str, Any] = json.loads(json.dumps(check_files(order, lambda _: None)))
        return answer


def make_gateway(
    folder: Path, *, inference: httpx.AsyncBaseTransport | None = None, **settings: Any
) -> GatewayUnderTest:
    values: dict[str, Any] = {
        "store": "filesystem",
        "store_path": folder / "store",
        "kafka_bootstrap_servers": "nowhere:9092",
        "gateway_api_key": KEY,
        "sse_poll_seconds": 0.05,
        "announce_wait_seconds": 60,
        **settings,
    }
    loaded = GatewaySettings(**values)
    store = FilesystemStore(folder / "store")
    for bucket in BUCKETS:
        store.ensure_bucket(bucket)
    run_store = RunStore(store, loaded)
    live = LiveRuns(queue_size=loaded.sse_queue_size)
    broker = Broker()
    metrics = Metrics(CollectorRegistry())
    operations = Operations(store, loaded)
    intake = Intake(store, run_store, loaded, ChecksHere())
    letters = LettersInMemory(loaded)
    marks = ReplayMarks(store, loaded.bucket_pipeline_runs)
    gateway = Gateway(
        settings=loaded,
        intake=intake,
        outbox=Outbox(run_store, broker.publish, live, scan_seconds=loaded.outbox_scan_seconds, grace_seconds=0),
        queries=Queries(store, run_store, live, raw_bucket=loaded.bucket_raw_data),
        tails=Tails(store, run_store, loaded),
        live=live,
        proxy=InferenceProxy(
            "http://inference:8000", timeout_seconds=loaded.proxy_timeout_seconds, transport=inference or _Away()
        ),
        operations=operations,
        deleting=Deleting(
            Deletion(store, run_store.runs, loaded),
            run_store.runs,
            intake,
            operations,
            publish=broker.publish,
            live=live,
        ),
        janitor=Janitor(store, run_store, loaded, metrics),
        dead_letters=DeadLetterDesk(
            letters=letters,
            accounting=Accounting(loaded, consumers={}, letters=letters),
            marks=marks,
            replayer=Replayer(
                loaded,
                letters,
                marks,
                leases=run_store.leases,
                publish=broker.publish_record,
                check=check_run(run_store),
                sleep=lambda _: None,
            ),
            operations=operations,
            settings=loaded,
            metrics=metrics,
        ),
        metrics=metrics,
        validations=anyio.CapacityLimiter(loaded.parallel_validations),
    )
    return GatewayUnderTest(loaded, store, run_store, broker, letters, gateway, create_app(gateway))


def csv_text(
    rows: int,
    *,
    start: datetime = datetime(2024, 1, 1, tzinfo=UTC),
    step_seconds: int = 120,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
) -> bytes:
    """Return a CSV with the columns time, down and up."""
    random = np.random.default_rng(seed)
    text = io.StringIO()
    extra = dict(columns or {})
    text.write(",".join(["time", "down", "up", *extra]) + "\n")
    for row in range(rows):
        time = (start + timedelta(seconds=row * step_seconds)).strftime("%Y-%m-%d %H:%M:%S")
        down, up = 100 + 10 * np.sin(row / 20) + random.normal(), 5 + random.normal()
        text.write(",".join([time, f"{down:.4f}", f"{up:.4f}", *extra.values()]) + "\n")
    return text.getvalue().encode()


def following(rows_before: int, step_seconds: int = 120) -> datetime:
    """Return the start time of a test file that follows a training file of ``rows_before`` rows."""
    return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=rows_before * step_seconds)


def progress(run_id: str, identifier: str, **values: Any) -> RunProgress:
    return RunProgress(
        event_id=new_pipeline_run_id(),
        identifier=identifier,
        pipeline_run_id=run_id,
        created_at=datetime.now(UTC),
        **{"service": "train-gru", "stage": "train-gru", "state": "training", **values},
    )


def scoreboard(identifier: str, run_id: str) -> dict[str, Any]:
    """Return a scoreboard as eval writes it, with round numbers."""

    def scores(score: float, skill: float, coverage: float | None) -> dict[str, Any]:
        cells = [] if coverage is None else [{"target": "down", "step": 1, "coverage": coverage, "nominal": 0.9}]
        table = [
            {"target": "down", "step": 1, "rmse": score, "rmse_raw": 1000 * score},
            {"target": "up", "step": 1, "rmse": score, "rmse_raw": 10 * score},
            {"target": "down", "step": 10, "rmse": score, "rmse_raw": 2000 * score},
        ]
        return {
            "score": score,
            "rmse": score,
            "mae": score / 2,
            "mse": score**2,
            "skill": skill,
            "coverage": cells,
            "table": table,
        }

    return {
        "v": 1,
        "identifier": identifier,
        "pipeline_run_id": run_id,
        "decision": "promoted",
        "winner": "GRU",
        "reasons": [{"code": "best_score", "message": "GRU scores 0.02, the next LSTM 0.025"}],
        "weights": {"mae": 0.3, "mse": 0.2, "rmse": 0.5},
        "targets": ["down", "up"],
        "score_horizons": [1],
        "origins": 3972,
        "test_rows": 3982,
        "candidates": [
            {
                "model_type": "LSTM",
                "passed": True,
                "reasons": [],
                "warnings": [{"code": "coverage_low", "message": "intervals cover less than promised"}],
                "training_seconds": 12.5,
                "reused": True,
                **scores(0.025, 0.375, 0.75),
            },
            {
                "model_type": "GRU",
                "passed": True,
                "reasons": [],
                "warnings": [],
                "training_seconds": 71,
                **scores(0.02, 0.5, 0.88),
            },
            {
                "model_type": "PROPHET",
                "passed": False,
                "reasons": [{"code": "no_skill", "message": "its skill against persistence is -0.2500"}],
                "warnings": [],
                "training_seconds": 3.2,
                **scores(0.05, -0.25, 0.9),
            },
        ],
        "references": [
            {"name": "persistence", **scores(0.04, 0.0, None)},
            {"name": "ridge", **scores(0.03, 0.25, None)},
        ],
        "champion": None,
    }


def horizon_scoreboard(
    *, horizon: int, blocks: Sequence[tuple[int, int]], decision: str = "promoted", winner: str | None = "GRU"
) -> dict[str, Any]:
    """Return a scoreboard with a score over the horizon, as eval writes it; the best baseline is seasonal-naive."""

    def scores(score: float, skill: float) -> dict[str, Any]:
        return {
            "score": score,
            "composite": score / 10,
            "rmse": score / 8,
            "mae": score / 16,
            "mse": score**2 / 50,
            "skill": skill,
            "blocks": [score + at / 100 for at in range(len(blocks))],
            "coverage": [{"target": "down", "step": 1, "coverage": 0.875, "nominal": 0.9}],
            "table": [],
        }

    def candidate(model_type: str, score: float, skill: float, *codes: str) -> dict[str, Any]:
        reasons = [{"code": code, "message": f"{code} of {model_type}"} for code in codes]
        return {
            "model_type": model_type,
            "passed": not codes,
            "reasons": reasons,
            "warnings": [],
            "training_seconds": 71.0,
            "p_value": 0.001,
            "pieces": 20,
            **scores(score, skill),
        }

    def baseline(model_type: str, score: float, skill: float) -> dict[str, Any]:
        name = model_type.lower().replace("_", "-")
        return {"name": name, "baseline": True, "model_type": model_type, **scores(score, skill)}

    return {
        "v": 1,
        "decision": decision,
        "winner": winner,
        "reasons": [{"code": "best_score", "message": "GRU scores 0.8000, the next LSTM 0.8200"}],
        "weights": {"rmse": 0.5, "mae": 0.3, "mse": 0.2},
        "targets": ["down", "up"],
        "score_horizons": list(range(1, horizon + 1)),
        "horizon_steps": horizon,
        "best_baseline": "SEASONAL_NAIVE",
        "blocks": [{"first": first, "last": last} for first, last in blocks],
        "origins": 3972,
        "test_rows": 3982,
        "candidates": [
            candidate("GRU", 0.8, 0.5),
            candidate("LSTM", 0.82, 0.48),
            candidate("PROPHET", 1.5, 0.1, "no_skill"),
            candidate("LINEAR", 0.97, 0.35, "skill_within_noise"),
            candidate("HOLT", 2.0, -0.25, "no_skill"),
            candidate("ARIMA", 1.1, 0.2, "worse_block", "worse_block"),
        ],
        "references": [
            baseline("PERSISTENCE", 1.6, 0.0),
            baseline("SEASONAL_NAIVE", 1.0, 0.3),
            baseline("MEAN", 2.5, -0.5),
        ],
        "champion": None,
    }


class _Away(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        msg = "nobody listens"
        raise httpx.ConnectError(msg, request=request)


def sse(text: str) -> Iterator[tuple[str, str]]:
    """Yield (event, data) of a finished stream."""
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in lines:
            yield lines["event"], lines["data"]


@contextmanager
def serve(app: FastAPI, *, grace_seconds: int = 5) -> Iterator[tuple[str, uvicorn.Server]]:
    """Serve an application on a free port of this machine; yield its address and the server."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=grace_seconds)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]), name="served-gateway")
        thread.start()
        try:
            eventually(lambda: server.started, "the server listens", every=0.005)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", server
        finally:
            server.should_exit = True
            thread.join(timeout=20)
            assert not thread.is_alive()


def claim(bucket: str = "raw-data", key: str = "x/y/train.csv") -> ClaimCheck:
    return ClaimCheck(bucket=bucket, object_key=key, size=1, sha256="0" * 64, rows=10, columns=2)
