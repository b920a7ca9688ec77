"""A new pipeline with one trainer: before the first champion, Prophet's promotion, and a restart without backends."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.eventually import eventually
from tests.seasonal import seasonal_csv
from tests.stack import RunningStack, running_stack

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def prophet_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with running_stack(tmp_path_factory.mktemp("prophet") / "home", EXPECTED_MODEL_TYPES="PROPHET") as running:
        yield running


def test_before_any_champion_inference_is_ready_and_says_what_is_missing(prophet_stack: RunningStack) -> None:
    ready = httpx.get(f"{prophet_stack.state['inference_url']}/readyz")
    assert ready.status_code == 200, ready.text

    answer = prophet_stack.predict({"data": {"time": ["2024-01-01T00:00:00"], "load": [1.0], "heat": [2.0]}})

    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "no_champion"
    assert int(answer.headers["retry-after"]) >= 1


def test_prophet_is_promoted_and_served_and_the_waiting_test_rows_are_forecast(
    prophet_stack: RunningStack, tmp_path: Path
) -> None:
    run_id = prophet_stack.upload("season", seasonal_csv(tmp_path / "season.csv"))

    run = prophet_stack.wait_decided(run_id)

    assert run["outcome"] == "promoted", run["decision"]
    assert run["decision"]["model_type"] == "PROPHET"
    prophet_stack.wait_refitted(run_id)
    folder = prophet_stack.store / "pipeline-runs" / "season" / run_id
    eventually((folder / "forecast.json").exists, "the claim that came before any champion is forecast", timeout=60)
    assert json.loads((folder / "forecast.json").read_text())["status"] == "done"

    with prophet_stack.gateway as client:
        body = client.get("/datasets/season/tail", params={"rows": 5}).json()
    answer = prophet_stack.predict(body | {"inference_length": 48})
    assert answer.status_code == 200, answer.text
    predicted = [row["load"] for row in answer.json()["predictions"]]
    assert max(predicted) > 125, "the forecast follows the day"
    assert min(predicted) < 75


def test_the_last_champion_survives_a_restart_and_the_loss_of_every_backend(prophet_stack: RunningStack) -> None:
    with prophet_stack.gateway as client:
        body = client.get("/datasets/season/tail", params={"rows": 5}).json()
    before = prophet_stack.predict(body).json()["predictions"]
    with every_backend_away(prophet_stack):
        os.kill(prophet_stack.pid("inference"), signal.SIGKILL)

        def answers() -> httpx.Response | None:
            try:
                answer = prophet_stack.predict(body)
            except httpx.TransportError:
                return None
            # The replica answers 503 until the champion is loaded. `eventually` then repeats the request.
            assert answer.status_code == 200, answer.text
            return answer

        answer = eventually(answers, "the restarted replica answers from its disk")
        assert answer.json()["predictions"] == before


@contextmanager
def every_backend_away(stack: RunningStack) -> Iterator[None]:
    """Suspend the broker and MLflow, so that they never answer; replace the store's folder with a file."""
    frozen = [psutil.Process(stack.pid(name)) for name in ("kafka", "mlflow")]
    frozen += [child for process in frozen for child in process.children(recursive=True)]
    hidden = stack.store.with_name("store-away")
    stack.store.rename(hidden)
    stack.store.write_text("")
    for process in frozen:
        process.suspend()
    try:
        yield
    finally:
        for process in frozen:
            process.resume()
        stack.store.unlink()
        hidden.rename(stack.store)
