"""Faults that a real server does not produce on demand: it forgets its runs, or answers too late."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from flts.observability.metrics import Metrics
from flts.settings import TrackingSettings
from flts.tracking.breaker import Breaker
from flts.tracking.record import Registration, RunDocument
from flts.tracking.recorder import Cursor, Recorder, TrackerAwayError, TrackerRefusedError


class MlflowError(Exception):
    def __init__(self, code: str, status: int) -> None:
        super().__init__(code)
        self.error_code = code
        self._status = status

    def get_http_status_code(self) -> int:
        return self._status


class MemoryMlflow:
    """The part of an MLflow server that these tests need."""

    def __init__(self) -> None:
        self.runs: dict[str, Any] = {}
        self.metrics: dict[str, list[Any]] = {}
        self.versions: list[Any] = []
        self.fail: dict[str, Exception] = {}
        self.twice = False
        self.statuses: dict[str, str] = {}

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id="1", name=name, lifecycle_stage="active")

    def search_runs(self, _: list[str], filter_string: str) -> list[Any]:
        return [run for run in self.runs.values() if f"'{run.data.tags['run_id']}'" in filter_string]

    def create_run(self, _: str, *, start_time: int, tags: dict[str, str], run_name: str | None) -> Any:
        self._raise("create_run")
        for late in (True, False) if self.twice else (False,):
            run_id = f"{'late' if late else 'm'}{len(self.runs)}"
            made = str(int(tags["flts.made_ms"]) - (1000 if late else 0))
            self.runs[run_id] = SimpleNamespace(
                info=SimpleNamespace(
                    run_id=run_id, artifact_uri=f"files/{run_id}", start=start_time, name=run_name, end_time=None
                ),
                data=SimpleNamespace(tags={**tags, "flts.made_ms": made}),
            )
            self.metrics[run_id] = []
        return self.runs[run_id]

    def delete_run(self, run_id: str) -> None:
        del self.runs[run_id]

    def log_batch(self, run_id: str, *, metrics: Any = (), params: Any = (), tags: Any = (), synchronous: bool) -> None:
        assert synchronous
        assert not params
        assert not tags
        self._raise("log_batch")
        if run_id not in self.runs:
            code = "RESOURCE_DOES_NOT_EXIST"
            raise MlflowError(code, 404)
        self.metrics[run_id] += [one.value for one in metrics]

    def set_terminated(self, run_id: str, status: str, *, end_time: int | None) -> None:
        self.runs[run_id].info.end_time = end_time
        self.statuses[run_id] = status

    def create_registered_model(self, _: str) -> None:
        code = "RESOURCE_ALREADY_EXISTS"
        raise MlflowError(code, 400)

    def create_model_version(self, _: str, source: str, *, run_id: str, tags: Any, await_creation_for: int) -> None:
        assert await_creation_for == 0
        assert source == f"files/{run_id}/GRU"
        for _number in range(2 if self.twice else 1):
            self.versions.append(SimpleNamespace(version=str(len(self.versions) + 9), tags=tags))

    def search_model_versions(self, _: str) -> list[Any]:
        return list(reversed(self.versions))

    def delete_model_version(self, _: str, version: str) -> None:
        self.versions = [one for one in self.versions if one.version != version]

    def _raise(self, name: str) -> None:
        if name in self.fail:
            raise self.fail.pop(name)


@pytest.fixture
def server() -> MemoryMlflow:
    return MemoryMlflow()


@pytest.fixture
def recorder(server: MemoryMlflow, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    # Recorder sets this variable when it creates a real client, but this test gives it a fake client.
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    settings = TrackingSettings(mlflow_tracking_uri="http://unused")
    recorder = Recorder(settings, None, Breaker(0), Metrics(CollectorRegistry()))
    recorder._client = server
    return recorder


def document(metrics: int = 2500) -> RunDocument:
    made = RunDocument("a" * 32, "s", "", 1, status="FINISHED", end_ms=9)
    for step in range(metrics):
        made.add_metrics({"loss": float(step)}, step, 1)
    made.registration = Registration("GRU", {})
    return made


def test_a_long_history_is_sent_in_batches_that_mlflow_takes(recorder: Recorder, server: MemoryMlflow) -> None:
    recorder.record(document(), Cursor(), create=True)

    assert server.metrics == {"m0": [float(step) for step in range(2500)]}
    assert server.statuses == {"m0": "FINISHED"}
    assert server.runs["m0"].info.end_time == 9


@pytest.mark.parametrize("error", [TimeoutError("read"), MlflowError("INTERNAL_ERROR", 500), MlflowError("X", 403)])
def test_what_is_acknowledged_is_not_sent_again(recorder: Recorder, server: MemoryMlflow, error: Exception) -> None:
    cursor, made = Cursor(), document(10)
    recorder.record(made, cursor, create=True)
    made.add_metrics({"loss": 99.0}, 10, 1)
    server.fail["log_batch"] = error

    with pytest.raises(TrackerAwayError):
        recorder.record(made, cursor, create=True)
    recorder.record(made, cursor, create=True)

    assert server.metrics["m0"] == [*map(float, range(10)), 99.0]


def test_a_run_that_a_lost_answer_made_twice_is_one_afterwards(recorder: Recorder, server: MemoryMlflow) -> None:
    server.twice = True

    recorder.record(document(3), Cursor(), create=True)

    assert list(server.runs) == ["late0"]
    assert server.metrics["late0"] == [0.0, 1.0, 2.0]
    assert [one.version for one in server.versions] == ["9"]


def test_a_run_whose_making_was_answered_too_late_is_one_afterwards(recorder: Recorder, server: MemoryMlflow) -> None:
    recorder.record(document(3), Cursor(), create=True)
    tags = {**server.runs["m0"].data.tags, "flts.made_ms": "9" * 15}
    server.create_run("1", start_time=1, tags=tags, run_name=None)

    recorder.record(document(0), Cursor(), create=True)

    assert list(server.runs) == ["m0"]


def test_an_earlier_try_that_waited_in_the_spool_undoes_no_later_one(recorder: Recorder, server: MemoryMlflow) -> None:
    failed, finished = document(1), document(1)
    failed.status, failed.end_ms = "FAILED", 5
    recorder.record(finished, Cursor(), create=True)

    recorder.record(failed, Cursor(), create=True)

    assert server.statuses == {"m0": "FINISHED"}


def test_a_server_that_forgot_the_run_is_told_it_all_again(recorder: Recorder, server: MemoryMlflow) -> None:
    cursor, made = Cursor(), document(3)
    recorder.record(made, cursor, create=True)
    server.runs.clear()
    made.add_metrics({"loss": 3.0}, 3, 1)

    recorder.record(made, cursor, create=True)

    [run_id] = server.runs
    assert server.metrics[run_id] == [0.0, 1.0, 2.0, 3.0]
    assert cursor.mlflow_run_id == run_id


def test_a_refused_run_is_no_reason_to_hold_other_calls_back(recorder: Recorder, server: MemoryMlflow) -> None:
    server.fail["create_run"] = MlflowError("INVALID_PARAMETER_VALUE", 400)
    recorder._breaker._open_seconds = 60

    with pytest.raises(TrackerRefusedError, match="INVALID_PARAMETER_VALUE"):
        recorder.record(document(1), Cursor(), create=True)

    assert not recorder._breaker.is_open
    recorder.record(document(1), Cursor(), create=True)
    assert len(server.runs) == 1


def test_neither_log_nor_error_shows_the_password_of_the_address(
    server: MemoryMlflow, caplog: pytest.LogCaptureFixture
) -> None:
    settings = TrackingSettings(mlflow_tracking_uri="http://tracker:pa55word@mlflow:5000")
    now = [0.0]
    recorder = Recorder(settings, None, Breaker(60, clock=lambda: now[0]), Metrics(CollectorRegistry()))
    recorder._client = server
    server.fail["create_run"] = OSError("API request to http://tracker:pa55word@mlflow:5000/api failed")

    with caplog.at_level("INFO"):
        with pytest.raises(TrackerAwayError) as away:
            recorder.record(document(1), Cursor(), create=True)
        with pytest.raises(TrackerAwayError, match="did not answer a moment ago") as held_back:
            recorder.record(document(1), Cursor(), create=True)
        now[0] = 61.0
        recorder.record(document(1), Cursor(), create=True)

    fields = [record.flts_fields for record in caplog.records if "address" in getattr(record, "flts_fields", {})]  # type: ignore[attr-defined]
    assert [one["address"] for one in fields] == ["http://mlflow:5000"] * 2
    assert "pa55word" not in f"{fields}{away.value}{held_back.value}"
