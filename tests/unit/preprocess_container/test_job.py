from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from flts.contracts.events import RawData
from flts.errors import HashMismatchError, NotFoundError, RejectedError
from flts.ingest.uploads import upload_hash
from flts.storage import layout
from flts.storage.filesystem import FilesystemStore
from flts.storage.run_store import RunStore
from preprocess_container import job as module
from preprocess_container.job import DatasetJob, JobSettings
from tests.preprocessing import Preprocessing, make_csv, make_values


@pytest.fixture
def store(tmp_path: Path) -> FilesystemStore:
    store = FilesystemStore(tmp_path)
    for bucket in ("raw-data", "pipeline-runs"):
        store.ensure_bucket(bucket)
    return store


def make_job(
    store: FilesystemStore, tmp_path: Path, name: str = "series", **settings: object
) -> tuple[DatasetJob, RunStore]:
    used = JobSettings(
        store="filesystem",
        store_path=tmp_path,
        kafka_bootstrap_servers="127.0.0.1:1",
        dataset_name=name,
        **settings,  # type: ignore[arg-type] - pydantic checks the types
    )
    run_store = RunStore(store, used)
    return DatasetJob(store, run_store, used), run_store


def upload(store: FilesystemStore, rows: int, name: str = "series") -> str:
    data = make_csv(make_values(rows))
    digest = upload_hash(hashlib.sha256(data).hexdigest())
    store.put("raw-data", layout.UPLOAD(name, digest, "train"), data)
    return digest


def test_the_sample_is_uploaded_and_started_where_nothing_is(store: FilesystemStore, tmp_path: Path) -> None:
    job, run_store = make_job(store, tmp_path, "sample")

    event = job.prepare()

    assert event is not None
    assert (event.identifier, event.cause) == ("sample", "job")
    keys = [info.key for info in store.list("raw-data", "sample/")]
    assert keys == [event.test.object_key if event.test else "", event.train.object_key]
    record = run_store.runs.read("sample", event.pipeline_run_id)
    assert record is not None
    assert RawData.model_validate(record) == event
    assert run_store.stages.of("sample", event.pipeline_run_id)["upload"]["status"] == "done"


def test_what_the_job_announces_can_be_preprocessed(store: FilesystemStore, tmp_path: Path) -> None:
    job, _ = make_job(store, tmp_path, "sample")
    event = job.prepare()
    assert event is not None

    made = Preprocessing.start(tmp_path, store).run(event)

    assert made.training.rows == 6_000


def test_the_newest_upload_is_taken(store: FilesystemStore, tmp_path: Path) -> None:
    digest = upload(store, 60)
    job, _ = make_job(store, tmp_path)

    event = job.prepare()

    assert event is not None
    assert event.train.object_key == layout.UPLOAD("series", digest, "train")
    assert event.test is None


def test_a_second_execution_starts_nothing(store: FilesystemStore, tmp_path: Path) -> None:
    upload(store, 60)
    job, run_store = make_job(store, tmp_path)
    event = job.prepare()
    assert event is not None
    job.finish(event)

    assert make_job(store, tmp_path)[0].prepare() is None
    assert run_store.runs.of("series") == [event.pipeline_run_id]


def test_an_execution_that_was_killed_is_gone_on_with(store: FilesystemStore, tmp_path: Path) -> None:
    upload(store, 60)
    killed, run_store = make_job(store, tmp_path)
    first = killed.prepare()  # simulates a kill before the broker acknowledged the event

    second = make_job(store, tmp_path)[0].prepare()

    assert first is not None
    assert second == first
    assert run_store.runs.of("series") == [first.pipeline_run_id]


@pytest.mark.parametrize(
    "settings", [{"scaler": "none"}, {"extra_hash_salt": "x"}, {"input_seq_len": 12}, {"horizon": "3"}]
)
def test_another_recipe_or_window_starts_another_run(
    store: FilesystemStore, tmp_path: Path, settings: dict[str, object]
) -> None:
    upload(store, 60)
    job, run_store = make_job(store, tmp_path)
    first = job.prepare()
    assert first is not None
    job.finish(first)

    second = make_job(store, tmp_path, **settings)[0].prepare()

    assert second is not None
    assert run_store.runs.of("series") == [second.pipeline_run_id, first.pipeline_run_id]


def test_another_upload_starts_another_run(store: FilesystemStore, tmp_path: Path) -> None:
    upload(store, 60)
    job, _ = make_job(store, tmp_path)
    first = job.prepare()
    assert first is not None
    job.finish(first)
    upload(store, 70)

    second = job.prepare()

    assert second is not None
    assert second.train != first.train


def test_an_unknown_name_is_refused_with_the_command_that_uploads_it(store: FilesystemStore, tmp_path: Path) -> None:
    job, run_store = make_job(store, tmp_path, "PobleSec")

    with pytest.raises(NotFoundError, match=r"flts upload PobleSec train\.csv") as refusal:
        job.prepare()

    assert (refusal.value.code, refusal.value.field) == ("no_upload", "DATASET_NAME")
    assert run_store.runs.identifiers() == []


def test_a_name_that_is_no_identifier_is_refused(store: FilesystemStore, tmp_path: Path) -> None:
    with pytest.raises(RejectedError) as refusal:
        make_job(store, tmp_path, "../etc")[0].prepare()

    assert refusal.value.code == "bad_identifier"


def test_a_changed_file_is_not_started(store: FilesystemStore, tmp_path: Path) -> None:
    digest = upload(store, 60)
    store.put("raw-data", layout.UPLOAD("series", digest, "train"), b"changed")

    with pytest.raises(HashMismatchError):
        make_job(store, tmp_path)[0].prepare()


def run_main(monkeypatch: pytest.MonkeyPatch, path: Path, name: str) -> int:
    for variable, value in {
        "STORE": "filesystem",
        "STORE_PATH": str(path),
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "DATASET_NAME": name,
    }.items():
        monkeypatch.setenv(variable, value)
    return module.main()


def test_main_says_in_one_line_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run_main(monkeypatch, tmp_path, "PobleSec")

    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == 1
    assert line["event"] == "job_failed"
    assert "flts upload PobleSec" in line["error"]


def test_main_announces_once_and_marks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[RawData] = []
    monkeypatch.setattr(module, "_publish", lambda event, _: published.append(event))

    codes = [run_main(monkeypatch, tmp_path, "sample") for _ in range(2)]

    assert codes == [0, 0]
    assert [event.identifier for event in published] == ["sample"]


def test_an_upload_of_any_size_is_hashed_without_a_copy_of_it(
    store: FilesystemStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = upload(store, 60)
    job, _ = make_job(store, tmp_path)

    def full(*_: object, **__: object) -> None:
        msg = "no space left on device"
        raise OSError(msg)

    monkeypatch.setattr(module.tempfile, "TemporaryDirectory", full)
    monkeypatch.setattr(store, "get_file", full)

    event = job.prepare()

    assert event is not None
    assert upload_hash(event.train.sha256) == digest
    assert event.train.size == store.head("raw-data", event.train.object_key).size
