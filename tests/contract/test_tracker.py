"""The promises of a tracker: one suite for MLflow on SQLite and on Postgres, and for servers that are unavailable."""

from __future__ import annotations

import math
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from embedded.ports import free_port
from flts.contracts.claim_check import ClaimCheck
from flts.observability.metrics import Metrics
from flts.settings import TrackingSettings
from flts.storage.claims import put_claimed
from flts.storage.ports import ObjectStore
from flts.tracking.mlflow import TrackedRun, Tracker
from flts.tracking.record import ForgetDocument
from flts.tracking.spool import Spool
from tests.eventually import eventually
from tests.mlflow_servers import Mlflow, frozen_server, named_mlflow, running_mlflow, why_no_postgres
from tests.stores import folder_store

BUCKET = "pipeline-runs"


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Restore the environment, because the MLflow timeouts that a tracker sets there apply to all trackers."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def patiently() -> None:
    """Lengthen the timeout of MLflow's client for a server that was just resumed."""
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "30"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return folder_store(tmp_path / "store")


@pytest.fixture
def tracker(server: Mlflow, store: ObjectStore) -> Iterator[Tracker]:
    tracker = make_tracker(server.uri, store)
    yield tracker
    tracker.close()


@pytest.fixture
def mlflow(server: Mlflow, tracker: Tracker) -> Any:
    assert tracker.end_stale_runs() == 0  # this call makes the tracker set mlflow's timeouts and then import mlflow
    from mlflow import MlflowClient  # noqa: PLC0415 - the tracker must import mlflow first

    return MlflowClient(tracking_uri=server.uri, registry_uri=server.uri)


@pytest.fixture
def experiment() -> str:
    return f"series-{uuid.uuid4().hex[:8]}"


def make_tracker(
    uri: str, store: ObjectStore | None, *, timeout: float = 5, close: float = 20, open_seconds: float = 0.0
) -> Tracker:
    settings = TrackingSettings(mlflow_tracking_uri=uri, mlflow_timeout_seconds=timeout, mlflow_close_seconds=close)
    metrics = Metrics(CollectorRegistry())
    return Tracker(settings, store, BUCKET, metrics=metrics, open_seconds=open_seconds)


def sample(tracker: Tracker, name: str, **labels: str) -> float:
    return tracker._metrics.registry.get_sample_value(name, labels) or 0.0


def new_run_id() -> str:
    return uuid.uuid4().hex


def start(tracker: Tracker, experiment: str, run_id: str, model_type: str = "GRU") -> TrackedRun:
    tags = {"run_id": run_id, "model_type": model_type, "config_hash": "c" * 64}
    return tracker.start_run(run_id, experiment, f"{model_type}-run", {"epochs": 3, "none": None}, tags)


def record_training(tracker: Tracker, experiment: str, run_id: str, model_type: str = "GRU") -> str | None:
    run = start(tracker, experiment, run_id, model_type)
    for epoch in range(3):
        run.log_metrics(epoch, train_loss=1 / (epoch + 1), val_loss=math.nan if epoch == 0 else 2.0)
        run.log_system_metrics(epoch)
    run.log_bytes(f"{model_type}/model.onnx", b"onnx")
    run.log_bytes("preprocess/preprocess_config.json", b"{}")
    run.register("s3://model-bundles/x", model_type)
    return run.finish("FINISHED")


def train_of(tracker: Tracker, experiment: str, pipeline_run_id: str) -> str:
    """Record a training of a pipeline run; return its run_id."""
    run_id = new_run_id()
    tags = {"run_id": run_id, "model_type": "GRU", "pipeline_run_id": pipeline_run_id}
    run = tracker.start_run(run_id, experiment, "GRU-run", {}, tags)
    run.register("s3://model-bundles/x", "GRU")
    assert run.finish("FINISHED") is not None
    return run_id


def forget(store: ObjectStore, experiment: str, *, before: str) -> None:
    Spool(store, BUCKET).put(ForgetDocument(experiment, before))


def runs_of(mlflow: Any, experiment: str) -> list[Any]:
    found = mlflow.get_experiment_by_name(experiment)
    return list(mlflow.search_runs([found.experiment_id])) if found else []


def versions_of(mlflow: Any, experiment: str) -> list[Any]:
    return list(mlflow.search_model_versions(f"name = '{experiment}'"))


def spooled(store: ObjectStore) -> list[str]:
    return [info.key.removeprefix("_spool/") for info in store.list(BUCKET, "_spool/")]


class TrackerContract:
    """The promises of a tracker on any server; a subclass provides ``server``."""

    def test_a_training_is_recorded_whole(
        self, tracker: Tracker, mlflow: Any, store: ObjectStore, experiment: str
    ) -> None:
        run_id = new_run_id()
        before = int(time.time() * 1000)

        mlflow_run_id = record_training(tracker, experiment, run_id)

        [run] = runs_of(mlflow, experiment)
        assert run.info.run_id == mlflow_run_id
        assert run.info.status == "FINISHED"
        assert run.info.run_name == "GRU-run"
        assert before <= run.info.start_time <= run.info.end_time <= time.time() * 1000
        assert run.data.params == {"epochs": "3"}
        assert run.data.tags["run_id"] == run_id
        history = mlflow.get_metric_history(mlflow_run_id, "train_loss")
        assert [(one.step, one.value) for one in history] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
        first, *rest = mlflow.get_metric_history(mlflow_run_id, "val_loss")
        assert math.isnan(first.value)
        assert [one.value for one in rest] == [2.0, 2.0]
        for name in ("cpu_utilization_percentage", "system_memory_usage_megabytes"):
            assert len(mlflow.get_metric_history(mlflow_run_id, f"system/{name}")) == 3
        assert run.data.metrics["system/process_memory_megabytes"] > 10
        assert [one.path for one in mlflow.list_artifacts(mlflow_run_id, "GRU")] == ["GRU/model.onnx"]
        [version] = versions_of(mlflow, experiment)
        assert version.source == f"{run.info.artifact_uri}/GRU"
        assert version.run_id == mlflow_run_id
        assert version.tags == {
            "run_id": run_id,
            "model_type": "GRU",
            "config_hash": "c" * 64,
            "model_uri": "s3://model-bundles/x",
        }
        assert spooled(store) == []

    def test_an_epoch_leaves_in_one_call(self, tracker: Tracker, mlflow: Any, experiment: str) -> None:
        run = start(tracker, experiment, new_run_id())
        eventually(lambda: run._cursor.params_sent, "the run is described")
        calls: list[str] = []
        both = threading.Event()
        # The run calls this wait before it sends metrics. The replacement below makes it wait until the epoch has
        # logged both kinds of metrics, so the run sends both together.
        run._finishing.wait = lambda _=None: both.wait(30)  # type: ignore[method-assign] # see the line above
        call = tracker._recorder._call

        def counted(name: str, *args: Any, **options: Any) -> Any:
            calls.append(name)
            return call(name, *args, **options)

        tracker._recorder._call = counted  # type: ignore[method-assign]

        for epoch in range(3):
            both.clear()
            run.log_metrics(epoch, train_loss=1.0, val_loss=1.0)
            run.log_system_metrics(epoch)
            both.set()
            eventually(lambda epoch=epoch: run._cursor.metrics == 5 * (epoch + 1), f"epoch {epoch} is recorded")  # type: ignore[misc]

        assert calls == ["log_batch"] * 3
        assert run.finish() is not None
        assert len(runs_of(mlflow, experiment)) == 1

    def test_a_claim_is_recorded_with_the_bytes_it_promises(
        self, tracker: Tracker, mlflow: Any, store: ObjectStore, experiment: str, tmp_path: Path
    ) -> None:
        claim = put_claimed(store, "model-bundles", "x/bundle.json", b'{"bundle": 1}')
        gone = ClaimCheck(bucket="model-bundles", object_key="gone", size=1, sha256="0" * 64)
        run = start(tracker, experiment, new_run_id())
        run.log_claim("GRU/bundle.json", claim)
        run.log_claim("GRU/gone", gone)

        mlflow_run_id = run.finish()

        assert Path(mlflow.download_artifacts(mlflow_run_id, "GRU/bundle.json", str(tmp_path))).read_bytes() == (
            b'{"bundle": 1}'
        )
        assert [one.path for one in mlflow.list_artifacts(mlflow_run_id, "GRU")] == ["GRU/bundle.json"]
        assert mlflow.get_run(mlflow_run_id).info.status == "FINISHED"

    def test_a_trainer_that_was_killed_goes_on_with_the_same_run(
        self, tracker: Tracker, server: Mlflow, store: ObjectStore, mlflow: Any, experiment: str
    ) -> None:
        run_id = new_run_id()
        killed = start(tracker, experiment, run_id)
        eventually(lambda: killed.mlflow_run_id, "the first try is in MLflow")

        again = make_tracker(server.uri, store)
        mlflow_run_id = record_training(again, experiment, run_id)
        again.close()

        [run] = runs_of(mlflow, experiment)
        assert run.info.run_id == killed.mlflow_run_id == mlflow_run_id
        assert run.info.status == "FINISHED"
        assert len(versions_of(mlflow, experiment)) == 1

    def test_what_mlflow_refuses_is_left_out_and_the_rest_recorded(
        self, tracker: Tracker, mlflow: Any, store: ObjectStore, experiment: str
    ) -> None:
        run_id = new_run_id()
        record_training(tracker, experiment, run_id)

        again = tracker.start_run(run_id, experiment, "x", {"epochs": 4}, {"try": 2})
        again.log_bytes("../../outside", b"x")
        again.log_metrics(3, train_loss=0.25)
        assert again.finish("FAILED") is not None

        [run] = runs_of(mlflow, experiment)
        assert run.data.params == {"epochs": "3"}
        assert run.data.metrics["train_loss"] == 0.25
        assert run.info.status == "FAILED"
        assert spooled(store) == []

    def test_three_trainers_make_the_experiment_and_the_model_at_once(
        self, server: Mlflow, store: ObjectStore, tracker: Tracker, mlflow: Any, experiment: str
    ) -> None:
        types = ["GRU", "LSTM", "PROPHET"]
        trackers = [make_tracker(server.uri, store) for _ in types]
        answers: list[str | None] = []
        barrier = threading.Barrier(3)

        def train(one: Tracker, model_type: str) -> None:
            barrier.wait()
            answers.append(record_training(one, experiment, new_run_id(), model_type))

        threads = [threading.Thread(target=train, args=pair) for pair in zip(trackers, types, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert None not in answers
        while tracker.drain_spool():  # if a call to MLflow timed out on a busy machine, the spool has a document
            pass
        assert sorted(run.info.run_id for run in runs_of(mlflow, experiment)) == sorted(map(str, answers))
        assert sorted(one.tags["model_type"] for one in versions_of(mlflow, experiment)) == types

    def test_eval_adds_to_a_run_and_moves_the_champion(
        self, tracker: Tracker, mlflow: Any, store: ObjectStore, experiment: str
    ) -> None:
        first, second = new_run_id(), new_run_id()
        ids = [record_training(tracker, experiment, run_id) for run_id in (first, second)]

        assert tracker.append(first, experiment, metrics={"test_rmse": 0.1, "test_mape": None})
        assert tracker.append(first, experiment, artifacts={"scoreboard.json": b"{}", "why.txt": "won"})
        assert tracker.set_champion(experiment, first)
        assert tracker.set_champion(experiment, second)
        assert tracker.set_champion(experiment, first)

        run = mlflow.get_run(ids[0])
        assert run.data.metrics["test_rmse"] == 0.1
        assert "test_mape" not in run.data.metrics
        assert run.info.status == "FINISHED"
        assert {one.path for one in mlflow.list_artifacts(ids[0])} >= {"scoreboard.json", "why.txt"}
        assert mlflow.get_model_version_by_alias(experiment, "champion").tags["run_id"] == first
        assert spooled(store) == []

    def test_runs_whose_process_is_gone_are_ended_and_others_left_alone(
        self, tracker: Tracker, mlflow: Any, experiment: str
    ) -> None:
        killed = start(tracker, experiment, new_run_id())
        mlflow_run_id = str(eventually(lambda: killed.mlflow_run_id, "the run is in MLflow"))
        [found] = runs_of(mlflow, experiment)
        foreign = mlflow.create_run(found.info.experiment_id, start_time=1)

        assert tracker.end_stale_runs(3600) == 0
        assert tracker.end_stale_runs(-1) >= 1

        assert mlflow.get_run(mlflow_run_id).info.status == "KILLED"
        assert mlflow.get_run(foreign.info.run_id).info.status == "RUNNING"
        mlflow.set_terminated(foreign.info.run_id)

    def test_a_document_that_can_never_be_recorded_is_put_aside(self, tracker: Tracker, store: ObjectStore) -> None:
        store.put(BUCKET, "_spool/broken.json", b"{")

        assert tracker.drain_spool() == 0

        assert spooled(store) == []
        assert store.get(BUCKET, "_spool_rejected/broken.json")[0] == b"{"

    def test_a_deleted_data_set_is_forgotten_and_its_next_run_begins_a_new_experiment(
        self, tracker: Tracker, mlflow: Any, store: ObjectStore, experiment: str
    ) -> None:
        train_of(tracker, experiment, "01900000-0000-7000-8000-000000000001")
        old = mlflow.get_experiment_by_name(experiment).experiment_id

        forget(store, experiment, before="01900000-0000-7000-8000-000000000002")
        assert tracker.drain_spool() == 1

        assert mlflow.get_experiment_by_name(experiment) is None
        assert versions_of(mlflow, experiment) == []
        # The tracker still has in memory the ids of the experiment and the model that the test deleted. It must create
        # both again.
        train_of(tracker, experiment, "01900000-0000-7000-8000-000000000003")
        assert mlflow.get_experiment_by_name(experiment).experiment_id != old
        assert len(runs_of(mlflow, experiment)) == len(versions_of(mlflow, experiment)) == 1
        assert spooled(store) == []

    def test_a_tracker_elsewhere_that_knew_the_old_experiment_records_in_the_new_one(
        self, tracker: Tracker, mlflow: Any, server: Mlflow, store: ObjectStore, experiment: str
    ) -> None:
        trainer = make_tracker(server.uri, store)
        train_of(trainer, experiment, "01900000-0000-7000-8000-000000000001")
        forget(store, experiment, before="01900000-0000-7000-8000-000000000002")
        assert tracker.drain_spool() == 1

        train_of(trainer, experiment, "01900000-0000-7000-8000-000000000003")

        trainer.close()
        assert len(runs_of(mlflow, experiment)) == len(versions_of(mlflow, experiment)) == 1

    def test_what_is_newer_than_the_deletion_stays(
        self, tracker: Tracker, mlflow: Any, store: ObjectStore, experiment: str
    ) -> None:
        train_of(tracker, experiment, "01900000-0000-7000-8000-000000000001")
        newer = train_of(tracker, experiment, "01900000-0000-7000-8000-000000000003")

        forget(store, experiment, before="01900000-0000-7000-8000-000000000002")
        assert tracker.drain_spool() == 1
        forget(store, experiment, before="01900000-0000-7000-8000-000000000002")
        assert tracker.drain_spool() == 1, "may be repeated"

        assert [run.data.tags["run_id"] for run in runs_of(mlflow, experiment)] == [newer]
        assert [version.tags["run_id"] for version in versions_of(mlflow, experiment)] == [newer]

    def test_forgetting_what_mlflow_never_saw_is_done(self, tracker: Tracker, store: ObjectStore) -> None:
        forget(store, "never-there", before="01900000-0000-7000-8000-000000000002")

        assert tracker.drain_spool() == 1

    def test_a_frozen_server_holds_nobody_up_and_is_told_everything_once_it_is_back(
        self, tracker: Tracker, server: Mlflow, store: ObjectStore, mlflow: Any, experiment: str
    ) -> None:
        frozen = make_tracker(server.uri, store, timeout=1, close=2)
        run_id = new_run_id()
        run = start(frozen, experiment, run_id)
        run.log_metrics(0, train_loss=1.0)
        eventually(lambda: run._cursor.metrics == 1, "the first epoch is recorded")
        server.freeze()
        try:
            run.log_metrics(1, train_loss=0.5)
            run.log_bytes("GRU/model.onnx", b"onnx")
            run.register("s3://x", "GRU")
            started = time.monotonic()
            mlflow_run_id = run.finish()
            assert time.monotonic() - started < 15
            assert spooled(store) == [f"{run_id}.json"]
            started = time.monotonic()
            assert frozen.append(run_id, experiment, metrics={"test_rmse": 0.1}) is False
            assert frozen.set_champion(experiment, run_id) is False
            assert frozen.drain_spool() == 0
            assert time.monotonic() - started < 60
            assert len(spooled(store)) == 3
        finally:
            server.thaw()
            patiently()

        assert tracker.drain_spool() == 3
        assert tracker.drain_spool() == 0

        [recorded] = runs_of(mlflow, experiment)
        assert recorded.info.run_id == mlflow_run_id
        assert recorded.info.status == "FINISHED"
        assert recorded.data.metrics == {"train_loss": 0.5, "test_rmse": 0.1}
        assert [one.step for one in mlflow.get_metric_history(mlflow_run_id, "train_loss")] == [0, 1]
        assert [one.path for one in mlflow.list_artifacts(mlflow_run_id, "GRU")] == ["GRU/model.onnx"]
        [version] = versions_of(mlflow, experiment)
        assert mlflow.get_model_version_by_alias(experiment, "champion").version == version.version
        assert spooled(store) == []
        frozen.close()

    def test_a_run_that_mlflow_never_saw_is_recorded_exactly_once_later(
        self, tracker: Tracker, store: ObjectStore, mlflow: Any, experiment: str
    ) -> None:
        run_id = new_run_id()
        with frozen_server() as frozen:
            away = make_tracker(frozen.uri, store, timeout=1, close=2, open_seconds=30)
            started = time.monotonic()
            assert record_training(away, experiment, run_id) is None
            assert away.append(run_id, experiment, metrics={"test_rmse": 0.1}) is False
            assert away.set_champion(experiment, run_id) is False
            assert time.monotonic() - started < 15
            away.close()
        patiently()
        assert len(spooled(store)) == 3
        document, _ = store.get(BUCKET, f"_spool/{run_id}.json")

        assert tracker.drain_spool() == 3
        # A drain that is killed between its last call to MLflow and the removal of the document leaves the document.
        # The test simulates this: it stores the document again.
        store.put(BUCKET, f"_spool/{run_id}.json", document)
        assert tracker.drain_spool() == 1

        [run] = runs_of(mlflow, experiment)
        assert run.info.status == "FINISHED"
        assert run.data.metrics["test_rmse"] == 0.1
        assert len(mlflow.get_metric_history(run.info.run_id, "train_loss")) == 3
        [version] = versions_of(mlflow, experiment)
        assert version.tags["run_id"] == run_id
        assert mlflow.get_model_version_by_alias(experiment, "champion").version == version.version

    def test_a_run_catches_up_by_itself_where_mlflow_comes_back_in_time(
        self, server: Mlflow, store: ObjectStore, mlflow: Any, experiment: str
    ) -> None:
        one = make_tracker(server.uri, store, timeout=1, close=20)
        server.freeze()
        try:
            run = start(one, experiment, new_run_id())
            run.log_metrics(0, train_loss=1.0)
            eventually(lambda: sample(one, "flts_mlflow_calls_total", outcome="failed"), "a call timed out")
        finally:
            server.thaw()
            patiently()
        run.log_metrics(1, train_loss=0.5)

        mlflow_run_id = run.finish()

        assert mlflow_run_id is not None
        [recorded] = runs_of(mlflow, experiment)
        assert [one.step for one in mlflow.get_metric_history(recorded.info.run_id, "train_loss")] == [0, 1]
        assert spooled(store) == []
        assert sample(one, "flts_mlflow_breaker_open") == 0
        one.close()

    def test_an_older_champion_never_comes_after_a_newer_one(
        self, tracker: Tracker, store: ObjectStore, mlflow: Any, experiment: str
    ) -> None:
        old, new = new_run_id(), new_run_id()
        for run_id in (old, new):
            record_training(tracker, experiment, run_id)
        away = make_tracker(f"http://127.0.0.1:{free_port()}", store)
        assert away.set_champion(experiment, old) is False
        assert spooled(store) == [f"champion-{experiment}.json"]

        assert tracker.set_champion(experiment, new)
        tracker.drain_spool()

        assert mlflow.get_model_version_by_alias(experiment, "champion").tags["run_id"] == new
        assert away.set_champion(experiment, new) is False
        assert tracker.drain_spool() == 1
        away.close()


class TestMlflowOnSqlite(TrackerContract):
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
        with running_mlflow(tmp_path_factory.mktemp("mlflow")) as server:
            yield server


@pytest.mark.skipif(why_no_postgres() is not None, reason=str(why_no_postgres()))
class TestMlflowOnPostgres(TrackerContract):
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[Mlflow]:
        with named_mlflow() as server:
            yield server


class TestWithoutMlflow:
    def test_the_first_timeout_holds_all_calls_back_for_a_while(self, store: ObjectStore, experiment: str) -> None:
        with frozen_server() as frozen:
            tracker = make_tracker(frozen.uri, store, timeout=1, close=5, open_seconds=30)
            run = start(tracker, experiment, new_run_id())
            eventually(lambda: tracker.held_back, "the breaker is open")
            assert sample(tracker, "flts_mlflow_breaker_open") == 1

            for epoch in range(100):
                run.log_metrics(epoch, train_loss=1.0)
            assert run.finish() is None
            assert tracker.append(new_run_id(), experiment, metrics={"x": 1}) is False
            assert tracker.drain_spool() == 0

            assert len(frozen.connections) == 1
            assert sample(tracker, "flts_mlflow_calls_total", outcome="failed") == 1
            assert sample(tracker, "flts_spool_documents") == 2
            tracker.close()

    def test_nobody_listening_costs_a_run_nothing_but_its_record(self, store: ObjectStore, experiment: str) -> None:
        tracker = make_tracker(f"http://127.0.0.1:{free_port()}", store, open_seconds=30)
        started = time.monotonic()

        assert record_training(tracker, experiment, new_run_id()) is None

        assert time.monotonic() - started < 5
        assert len(spooled(store)) == 1
        tracker.close()

    def test_without_a_spool_nothing_is_raised_either(self, experiment: str) -> None:
        tracker = make_tracker(f"http://127.0.0.1:{free_port()}", None)

        assert record_training(tracker, experiment, new_run_id()) is None
        assert tracker.drain_spool() == 0
        assert tracker.append(new_run_id(), experiment, metrics={"x": 1}) is False
        tracker.close()
