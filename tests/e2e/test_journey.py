"""An uploaded CSV becomes a served, measured forecast, through all six services."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from flts.contracts.champion_stage import selected_event_id, stage_of
from flts.trainers import BASELINES, COMBINATION
from tests.eventually import eventually
from tests.pipeline import Pipeline
from tests.trainers import INSTALLED, LONG_TYPES

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def decided(stack: Pipeline, swinging: tuple[Path, Path]) -> dict[str, Any]:
    run_id = stack.upload("journey", *swinging)
    stack.wait_decided(run_id)
    return stack.wait_refitted(run_id)


def tail(stack: Pipeline, identifier: str) -> dict[str, Any]:
    with stack.gateway as client:
        return dict(client.get(f"/datasets/{identifier}/tail").json())


def test_a_model_earns_the_promotion_on_the_shipped_sample(decided: dict[str, Any]) -> None:
    assert decided["outcome"] == "promoted", decided["decision"]
    assert decided["decision"]["model_type"] in {*LONG_TYPES, COMBINATION}


def test_every_trainer_and_the_references_stand_in_the_scoreboard(decided: dict[str, Any]) -> None:
    scoreboard = decided["scoreboard"]
    assert {row["model_type"] for row in scoreboard["candidates"]} - {COMBINATION} == set(LONG_TYPES)
    references = {row["name"] for row in scoreboard["references"]}
    assert references == {"persistence", "seasonal-naive", "mean"}, "LINEAR takes the place of ridge"


def test_every_stage_says_when_it_began_and_ended(decided: dict[str, Any]) -> None:
    stages = {stage["stage"]: stage for stage in decided["stages"]}
    for name in ("preprocess", *INSTALLED, "eval"):
        assert stages[name]["status"] == "done"
        assert stages[name]["end"] >= stages[name]["start"]


def test_a_provisional_champion_came_before_the_decision_and_is_no_predecessor(
    stack: Pipeline, decided: dict[str, Any]
) -> None:
    run_id = decided["pipeline_run_id"]
    provisional = decided["champion_stages"]["provisional"]
    assert provisional["event_id"] == selected_event_id(run_id, "provisional")
    assert provisional["model_type"] in {"LINEAR", *BASELINES}
    assert decided["decision"]["previous_run_id"] is None

    carried_out, promoted = (
        [line["ts"] for line in stack.log_events("eval", event) if line.get("pipeline_run_id") == run_id]
        for event in ("champion_stage", "promotion_decision")
    )
    first, refitted = sorted(carried_out)
    assert first < min(promoted) < refitted
    current = stack.run_store.pointers.current("journey")
    assert current is not None
    assert (stage_of(current[0]), current[0]["previous"]) == ("refitted", None)


def test_the_champion_is_served_with_intervals_in_raw_units(stack: Pipeline, decided: dict[str, Any]) -> None:
    stack.wait_served("journey", decided["decision"]["run_id"])
    body = tail(stack, "journey") | {"inference_length": 6}

    answer = stack.predict(body)

    assert answer.status_code == 200, answer.text
    forecast = answer.json()
    assert forecast["run_id"] == decided["decision"]["run_id"]
    assert forecast["config_hash"] == decided["config_hash"]
    assert len(forecast["predictions"]) == 6
    targets = [name for name in body["data"] if name != body["index_col"]]
    for row in forecast["predictions"]:
        for target in targets:
            assert row[f"{target}_lower"] <= row[target] <= row[f"{target}_upper"]


def test_a_forecast_needs_only_the_name(stack: Pipeline, decided: dict[str, Any]) -> None:
    stack.wait_served("journey", decided["decision"]["run_id"])
    rows = tail(stack, "journey")

    with stack.gateway as client:
        answer = client.post("/predict", json={"identifier": "journey"})

    assert answer.status_code == 200, answer.text
    last = rows["data"][rows["index_col"]][-1]
    assert answer.json()["history_until"] == f"{last.replace(' ', 'T')}Z"
    values = [[value for name, value in row.items() if name != "ts"] for row in answer.json()["predictions"]]
    sent = stack.predict(rows).json()["predictions"]
    assert values == [[value for name, value in row.items() if name != "ts"] for row in sent]


def test_the_champions_coverage_reaches_the_metrics_of_every_replica(stack: Pipeline, decided: dict[str, Any]) -> None:
    stack.wait_served("journey", decided["decision"]["run_id"])

    text = httpx.get(f"{stack.state['inference_url']}/metrics").text

    [line] = [line for line in text.splitlines() if line.startswith("flts_champion_coverage ")]
    assert 0.5 < float(line.split()[1]) <= 1


def test_reversing_the_columns_of_a_request_changes_nothing(stack: Pipeline, decided: dict[str, Any]) -> None:
    stack.wait_served("journey", decided["decision"]["run_id"])
    body = tail(stack, "journey") | {"inference_length": 3}
    turned = body | {"data": dict(reversed(body["data"].items()))}

    assert stack.predict(body).json()["predictions"] == stack.predict(turned).json()["predictions"]


def test_the_gateway_passes_forecasts_on(stack: Pipeline, decided: dict[str, Any]) -> None:
    stack.wait_served("journey", decided["decision"]["run_id"])
    body = tail(stack, "journey")

    with stack.gateway as client:
        through = client.post("/predict", json=body)

    assert through.status_code == 200, through.text
    assert through.json()["predictions"] == stack.predict(body).json()["predictions"]


def test_the_worker_writes_and_measures_the_batch_forecast(stack: Pipeline, decided: dict[str, Any]) -> None:
    forecast = eventually(
        lambda: stack.run_store.forecasts.read("journey", decided["pipeline_run_id"]),
        "the batch forecast is recorded",
        timeout=60,
    )

    assert forecast["status"] == "done"
    assert forecast["rows"] > 0
    log = stack.objects.head(forecast["log"]["bucket"], forecast["log"]["object_key"])
    assert log.size == forecast["log"]["size"]


def test_mlflow_holds_runs_metrics_artifacts_and_the_champion_alias(stack: Pipeline, decided: dict[str, Any]) -> None:
    api = f"{stack.state['mlflow_url']}/api/2.0/mlflow"
    run_ids = {row["run_id"] for row in decided["scoreboard"]["candidates"]}

    def recorded() -> list[dict[str, Any]] | None:
        experiment = httpx.get(f"{api}/experiments/get-by-name", params={"experiment_name": "journey"})
        assert experiment.status_code == 200, experiment.text
        number = experiment.json()["experiment"]["experiment_id"]
        runs = httpx.post(f"{api}/runs/search", json={"experiment_ids": [number]}).json().get("runs", [])
        tagged = [run for run in runs if _tag(run, "run_id") in run_ids]
        assert len(tagged) == len(run_ids), "a tagged run for each candidate"
        assert all(run["info"]["status"] == "FINISHED" for run in tagged)
        assert all("test_rmse" in _metrics(run) for run in tagged)
        return tagged

    runs = eventually(recorded, "MLflow holds each finished run with test metrics", timeout=60, every=0.5)
    parameters = [{entry["key"] for entry in run["data"]["params"]} for run in runs]
    assert all({"model_type", "config_hash"} <= names for names in parameters)
    neural = [run for run in runs if "train_rmse" in _metrics(run)]
    assert len(neural) >= 2
    assert all({"train_loss", "val_loss", "val_mae"} <= _metrics(run) for run in neural)

    def champion() -> str | None:
        answer = httpx.get(f"{api}/registered-models/alias", params={"name": "journey", "alias": "champion"})
        assert answer.status_code == 200, answer.text
        version = answer.json()["model_version"]
        return next((tag["value"] for tag in version["tags"] if tag["key"] == "run_id"), None)

    assert eventually(champion, "the alias champion points somewhere", timeout=60) == decided["decision"]["run_id"]


def test_the_same_upload_again_trains_nothing_twice(
    stack: Pipeline, swinging: tuple[Path, Path], decided: dict[str, Any]
) -> None:
    again = stack.wait_decided(stack.upload("journey", *swinging), timeout=60)

    assert again["config_hash"] == decided["config_hash"]
    assert all(trained["reused"] for trained in again["trained"].values())
    assert again["outcome"] == "kept", again["decision"]


def test_live_progress_names_stage_epoch_and_loss(stack: Pipeline, seasonal_file: Path) -> None:
    run_id = stack.upload("live", seasonal_file, settings={"EPOCHS": 3})
    seen: list[dict[str, Any]] = []

    with stack.gateway as client, client.stream("GET", f"/runs/{run_id}/events", timeout=120) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        kind = ""
        for line in answer.iter_lines():
            if line.startswith("event:"):
                kind = line.removeprefix("event:").strip()
            elif line.startswith("data:"):
                seen.append(json.loads(line.removeprefix("data:")))
            if kind == "end" and not line:
                break

    epochs = [event for event in seen if event.get("epoch") and str(event.get("stage", "")).startswith("train-")]
    assert epochs, "epochs were told"
    assert all(event["loss"] is not None for event in epochs)


def test_ten_rows_are_refused_naming_the_rows_needed_by_the_windows_asked_for(
    stack: Pipeline, swinging: tuple[Path, Path], tmp_path: Path
) -> None:
    short = tmp_path / "short.csv"
    short.write_text("".join(swinging[0].read_text().splitlines(keepends=True)[:11]))

    with stack.gateway as client:
        answer = client.post(
            "/datasets/short",
            files={"train": ("t.csv", short.read_bytes(), "text/csv")},
            data={"settings": '{"INPUT_SEQ_LEN": 10}'},
        )

    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["code"] == "too_few_rows"
    assert "14" in error["message"], "the rows that window, horizon and tails need"


def test_every_service_answers_health_readiness_and_real_metrics(stack: Pipeline, decided: dict[str, Any]) -> None:
    assert decided["outcome"]
    for name, url in stack.state["health"].items():
        assert httpx.get(f"{url}/healthz").status_code == 200, name
        assert httpx.get(f"{url}/readyz").status_code == 200, name
        metrics = httpx.get(f"{url}/metrics")
        assert metrics.headers["content-type"].startswith("text/plain"), name
        assert "flts_build_info" in metrics.text, name
    counted = httpx.get(f"{stack.state['health']['train-gru']}/metrics").text
    assert 'flts_training_duration_seconds_count{model_type="GRU"}' in counted


def test_logs_are_json_and_bound_to_the_run(stack: Pipeline, decided: dict[str, Any]) -> None:
    successes = stack.log_events("train-gru", "train_success")
    mine = [record for record in successes if record.get("pipeline_run_id") == decided["pipeline_run_id"]]
    assert mine
    assert mine[0]["identifier"] == "journey"
    assert mine[0]["config_hash"] == decided["config_hash"]
    assert mine[0]["service"] == "train-gru"


def _tag(run: dict[str, Any], key: str) -> str | None:
    return next((tag["value"] for tag in run["data"].get("tags", []) if tag["key"] == key), None)


def _metrics(run: dict[str, Any]) -> set[str]:
    return {entry["key"] for entry in run["data"].get("metrics", [])}
