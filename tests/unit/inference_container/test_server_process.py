"""The server as a process of its own, without a broker."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from embedded.ports import free_port
from flts.storage.run_store import RunStore
from inference_container.settings import FetchSettings
from tests.eventually import eventually
from tests.serving import named_store, promote, request_of, serving_environment, small_series, window_bundle

SERIES = small_series()
FORBIDDEN = ("pandas", "mlflow", "torch", "boto3", "botocore", "pyarrow", "prophet", "flts.storage.s3", "scipy")


@contextmanager
def server(home: Path) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    port = free_port()
    environment = {**os.environ, **serving_environment(home / "store", home / "cache", SERVICE_PORT=str(port))}
    process = subprocess.Popen([sys.executable, "-m", "inference_container"], env=environment, stdout=subprocess.PIPE)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
            yield process, http
    finally:
        process.kill()
        process.communicate()


def answered(http: httpx.Client, path: str, status: int = 200) -> Any:
    try:
        answer = http.get(path)
    except httpx.TransportError:
        return None
    return answer if answer.status_code == status else None


def test_the_last_champion_answers_with_every_backend_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = named_store(tmp_path, monkeypatch)
    pointer = promote(store, RunStore(store, FetchSettings.load()), window_bundle(SERIES))

    with server(tmp_path) as (process, http):
        eventually(lambda: answered(http, "/models"), "the server listens", timeout=40)
        eventually(lambda: http.post("/predict", json=request_of(SERIES)).status_code == 200, "a forecast", timeout=40)
        first = http.post("/predict", json=request_of(SERIES, inference_length=5)).json()
        assert first["run_id"] == pointer["run_id"]
        assert answered(http, "/healthz")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=40)
        assert process.returncode == 0, output.decode()[-3000:]

    stored = [info.key for info in store.list("inference-logs")]
    assert stored, "the stopping server sent its forecast logs"
    shutil.rmtree(tmp_path / "store")
    with server(tmp_path) as (_, http):
        eventually(lambda: answered(http, "/models"), "the server listens", timeout=40)
        eventually(lambda: http.post("/predict", json=request_of(SERIES)).status_code == 200, "a forecast", timeout=40)
        assert http.post("/predict", json=request_of(SERIES, inference_length=5)).json() == first
        eventually(lambda: answered(http, "/readyz"), "ready without any backend", timeout=40)
        metrics = http.get("/metrics").text
        assert 'flts_predict_latency_seconds_count{model_type="GRU"} ' in metrics
        assert 'flts_predictions_total{outcome="success"} ' in metrics


def test_the_server_imports_nothing_that_trains_tracks_or_stores() -> None:
    code = (
        "import sys, inference_container.__main__, inference_container.api, inference_container.refresher, "
        "inference_container.predictor, inference_container.forecast_log, flts.runtime.server\n"
        f"print([name for name in {FORBIDDEN!r} if name in sys.modules])"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"


def test_wrong_settings_are_named_together_and_nothing_starts() -> None:
    names = ("KAFKA_BOOTSTRAP_SERVERS", "STORE", "STORE_PATH", "MLFLOW_S3_ENDPOINT_URL")
    environment = {name: value for name, value in os.environ.items() if name not in names}

    result = subprocess.run(
        [sys.executable, "-m", "inference_container"],
        env={**environment, "MAX_HORIZON_STEPS": "0"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 2
    assert "KAFKA_BOOTSTRAP_SERVERS: is required" in result.stderr
    assert "MAX_HORIZON_STEPS" in result.stderr
