"""This code reads the data of earlier releases: every object, every record of the queue, every cached champion."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from cli.scoreboard import scoreboard_table
from flts.bundle.load import fetch_bundle
from flts.bundle.model import BundleModel
from flts.contracts import topics
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import Event, ModelSelected, RawData, TrainingData
from flts.contracts.ids import new_pipeline_run_id
from flts.dead_letters.letters import Letter, head_of
from flts.dead_letters.replay import ReplayMarks
from flts.ingest.uploads import newest_upload, upload_hash
from flts.messaging.attempts import AttemptsExhaustedError, StoredAttempts
from flts.messaging.codec import decode
from flts.observability.metrics import Metrics
from flts.settings import StoreSettings
from flts.storage.claimed_frames import read_claimed_series
from flts.storage.filesystem import FilesystemStore
from flts.storage.frames import features_from_parquet, series_from_parquet
from flts.storage.layout import RunName
from flts.storage.operations import Operations
from flts.storage.pointers import Pointers
from flts.storage.records import Records
from flts.storage.run_store import RunStore
from flts.storage.tombstones import Tombstones
from flts.tracking.record import document_from_json
from flts.tracking.spool import Spool
from flts.training.dataset import claimed_training_set
from gateway_container.domain.uploads import starting_event
from gateway_container.domain.views import stage_view
from inference_container.cache import ChampionCache
from inference_container.champions import Champions
from inference_container.domain.batching import Batcher
from inference_container.domain.champion import load_champion
from inference_container.domain.promotion import Promotion
from inference_container.predictor import Predictor
from preprocess_container.dataset_store import DatasetStore
from preprocess_container.domain.config_hash import config_hash
from preprocess_container.job import DatasetJob, JobSettings
from preprocess_container.settings import PreprocessSettings
from tests.files_below import files_below
from tests.released import MODELS, MOST_BYTES, RELEASES, Release, assert_same_answer, code_of
from tests.stores import folder_settings, folder_store
from tests.training_sets import ENVIRONMENT, training_settings
from tests.whole_log import Logged

NOW = datetime.now(UTC)
Found = re.Match[str]
RAW, PROCESSED, BUNDLES = "raw-data", "processed-data", "model-bundles"
PROMOTION, RUNS, LOGS = "model-promotion", "pipeline-runs", "inference-logs"


@dataclass(frozen=True)
class Unpacked:
    """A release's files on disk."""

    release: Release
    home: Path

    @cached_property
    def settings(self) -> StoreSettings:
        return folder_settings(self.home / "store")

    @cached_property
    def store(self) -> FilesystemStore:
        return FilesystemStore(self.home / "store")

    @cached_property
    def run_store(self) -> RunStore:
        return RunStore(self.store, self.settings)

    @property
    def cache(self) -> ChampionCache:
        return ChampionCache(self.home / "inference")

    def has(self, bucket: str, key: str) -> bool:
        return (self.home / "store" / bucket / key).exists()

    def read(self, bucket: str, found: Found) -> bytes:
        return self.store.get(bucket, found["key"])[0]

    def claim(self, bucket: str, key: str) -> ClaimCheck:
        """Return the claim of a stored object."""
        data, _ = self.store.get(bucket, key)
        return ClaimCheck(bucket=bucket, object_key=key, size=len(data), sha256=hashlib.sha256(data).hexdigest())


@pytest.fixture(scope="module", params=RELEASES, ids=lambda release: release.commit)
def unpacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Unpacked:
    home = tmp_path_factory.mktemp("release")
    request.param.unpack(home)
    return Unpacked(request.param, home)


def run_of(found: Found) -> RunName:
    return RunName(found["identifier"], found["run"])


def test_an_archive_is_small_and_names_no_machine(unpacked: Unpacked) -> None:
    assert unpacked.release.archive.stat().st_size <= MOST_BYTES
    named = re.compile(rb"/(root|work|Users|home/(?!store))/?[a-z]")
    assert [path for path in files_below(unpacked.home) if named.search(path.read_bytes())] == []


# Objects: this release must read every kind of object that the older release stored


def read_upload(release: Unpacked, found: Found) -> None:
    folder = found["key"].rpartition("/")[0]
    files = [name for name in (f"{folder}/train.csv", f"{folder}/test.csv") if release.has(RAW, name)]
    assert upload_hash(*(release.claim(RAW, name).sha256 for name in files)) == found["hash"]
    assert newest_upload(release.store, RAW, found["identifier"]) is not None


def read_dataset(release: Unpacked, found: Found) -> None:
    stored = DatasetStore(release.store, PROCESSED).find(found["identifier"], found["hash"])
    whole = release.has(PROCESSED, f"{found['identifier']}/{found['hash']}/processed_data.parquet")
    assert (stored is not None) == whole


def read_features(release: Unpacked, found: Found) -> None:
    assert len(features_from_parquet(release.read(PROCESSED, found)))


def read_series(release: Unpacked, found: Found) -> None:
    assert len(series_from_parquet(release.read(PROCESSED, found)))


def read_bundle(release: Unpacked, found: Found) -> None:
    claim = release.claim(BUNDLES, f"{found['key'].rpartition('/')[0]}/bundle.json")
    bundle, model = fetch_bundle(release.store, claim)
    BundleModel(bundle, model)  # raises an error unless the model reproduces the bundle's probe
    assert (bundle.identifier, bundle.config_hash) == (found["identifier"], found["hash"])


def read_pointer(release: Unpacked, found: Found) -> None:
    current = release.run_store.pointers.current(found["identifier"])
    assert current is not None
    for pointer in filter(None, (current[0], current[0]["previous"])):
        promotion = Promotion.read(found["identifier"], pointer)
        load_champion(promotion, *fetch_bundle(release.store, promotion.bundle), max_horizon_steps=100)


def read_config_pointer(release: Unpacked, found: Found) -> None:
    pointer = release.run_store.pointers.current_of_config(found["identifier"], found["hash"])
    assert pointer is not None
    assert Promotion.read(found["identifier"], pointer).config_hash == found["hash"]


def read_run(release: Unpacked, found: Found) -> None:
    record = release.run_store.runs.read(*run_of(found))
    assert record is not None
    assert RunName(starting_event(record).identifier, starting_event(record).pipeline_run_id) == run_of(found)


def read_announced(release: Unpacked, found: Found) -> None:
    assert release.run_store.runs.announced(*run_of(found))


def read_stage(release: Unpacked, found: Found) -> None:
    record = release.run_store.stages.read(*run_of(found), found["name"])
    assert record is not None
    assert record["status"] in {"started", "done", "failed", "skipped"}
    assert stage_view(found["name"], record, now=NOW)["seconds"] >= 0
    if "bundle" in record:
        assert fetch_bundle(release.store, ClaimCheck.model_validate(record["bundle"]))


def read_expected(release: Unpacked, found: Found) -> None:
    record = release.run_store.evaluations.expected(*run_of(found))
    assert record is not None
    assert set(record["model_types"]) == set(MODELS)
    assert record["started"] < NOW.timestamp()
    event = TrainingData.model_validate(record["training_data"])
    if release.has(event.bucket, event.object_key):
        assert claimed_training_set(release.store, event, training_settings()).features.names


def read_trained(release: Unpacked, found: Found) -> None:
    event = release.run_store.evaluations.trained(*run_of(found))[found["name"]]
    assert (event.status == "SUCCESS") == (event.bundle is not None)


def read_scoreboard(release: Unpacked, found: Found) -> None:
    data = release.read(RUNS, found)
    assert hashlib.sha256(data).hexdigest() == found["hash"]
    board = json.loads(data)
    shown = "\n".join(scoreboard_table({"scoreboard": board}))
    assert all(candidate["model_type"] in shown for candidate in board["candidates"])


def read_decision(release: Unpacked, found: Found) -> None:
    record = release.run_store.evaluations.decision(*run_of(found))
    assert record is not None
    decided = ModelSelected.model_validate(record)
    if decided.decision == "promoted":
        assert Promotion.read(found["identifier"], record["pointer"]).run_id == decided.run_id


def read_outcome(release: Unpacked, found: Found) -> None:
    record = release.run_store.runs.outcome(*run_of(found))
    assert record is not None
    assert record["outcome"] == release.release.expected["outcomes"][found["run"]]


def read_inference(release: Unpacked, found: Found) -> None:
    event = release.run_store.forecasts.inference(*run_of(found))
    assert event is not None
    assert len(read_claimed_series(release.store, event.raw_test))


def read_forecast(release: Unpacked, found: Found) -> None:
    record = release.run_store.forecasts.read(*run_of(found))
    assert record is not None
    assert record["status"] in {"done", "skipped"}


def read_forecast_attempts(release: Unpacked, found: Found) -> None:
    """Assert that a deletion of the run removes its forecast attempts, which this release no longer reads."""
    assert found["key"] in release.run_store.runs.keys_of(*run_of(found))


def read_attempt(release: Unpacked, found: Found) -> None:
    identifier, run = run_of(found)
    event = Event.model_construct(identifier=identifier, pipeline_run_id=run, event_id=found["event"])
    attempts = StoredAttempts(release.store, RUNS, found["name"], max_attempts=int(found["number"]))
    with pytest.raises(AttemptsExhaustedError, match="child process ended"):
        attempts.begin(event)


def read_job(release: Unpacked, found: Found) -> None:
    record, first = release.run_store.runs.create_job(found["identifier"], found["hash"], {})
    assert not first
    assert RawData.model_validate(record).cause == "job"


def read_open_mark(release: Unpacked, found: Found) -> None:
    assert run_of(found) in release.run_store.runs.unfinished()


def read_index_mark(release: Unpacked, found: Found) -> None:
    assert release.run_store.runs.identifier_of(found["run"]) == found["identifier"]
    assert run_of(found) in release.run_store.runs.recent()


def read_forecast_mark(release: Unpacked, found: Found) -> None:
    assert run_of(found) in release.run_store.forecasts.waiting()


def read_lease(release: Unpacked, found: Found) -> None:
    until = json.loads(release.read(RUNS, found))["until"]
    run_store = RunStore(release.store, release.settings, clock=lambda: until - 1)
    assert not run_store.leases.acquire(found["name"], "another", 1), "it is held until its end"


def read_operation(release: Unpacked, found: Found) -> None:
    records = Operations(release.store, release.settings).of(found["identifier"])
    assert found["run"] in [record["operation_id"] for record in records]


def read_own_operation(release: Unpacked, found: Found) -> None:
    records = Operations(release.store, release.settings).of(None)
    assert found["run"] in [record["operation_id"] for record in records]


def read_tombstone(release: Unpacked, found: Found) -> None:
    tombstones = Tombstones(release.store, release.settings)
    assert tombstones.before(found["identifier"])
    assert not tombstones.unfinished(found["identifier"])


def read_idempotency_key(release: Unpacked, found: Found) -> None:
    record = json.loads(release.read(RUNS, found))
    assert release.run_store.runs.identifier_of(record["pipeline_run_id"])
    assert record["asked"]


def read_spooled(release: Unpacked, found: Found) -> None:
    spool = Spool(release.store, RUNS)
    assert found["key"] in list(spool.keys())
    assert document_from_json(spool.read(found["key"])[0]).run_id


def read_replay_mark(release: Unpacked, found: Found) -> None:
    marks = ReplayMarks(release.store, RUNS)
    assert found["uid"] in marks.replayed(found["name"])
    assert marks.read(found["name"], found["uid"])


def read_forecast_table(release: Unpacked, found: Found) -> None:
    assert len(series_from_parquet(release.read(LOGS, found)))


def read_forecast_log(release: Unpacked, found: Found) -> None:
    lines = [json.loads(line) for line in release.read(LOGS, found).splitlines()]
    assert {line["identifier"] for line in lines} == {found["identifier"]}
    assert all(line["predictions"] for line in lines)


NAMED = r"(?P<identifier>[A-Za-z0-9][A-Za-z0-9._-]{0,63})"
RUN, EVENT, HASH = r"(?P<run>[0-9a-f-]{36})", r"(?P<event>[0-9a-f-]{36})", r"(?P<hash>[0-9a-f]{64})"
WRITTEN = tuple(topic for topic in topics.ALL if topic is not topics.MODEL_REFIT)
"""Topics of the releases that have an archive; they made no refits."""
KINDS: dict[tuple[str, str], Callable[[Unpacked, Found], None]] = {
    (RAW, rf"{NAMED}/{HASH}/(train|test)\.csv"): read_upload,
    (PROCESSED, rf"{NAMED}/{HASH}/(test_)?processed_data\.meta\.json"): read_dataset,
    (PROCESSED, rf"{NAMED}/{HASH}/(test_)?processed_data\.parquet"): read_features,
    (PROCESSED, rf"{NAMED}/{HASH}/raw_test_data\.parquet"): read_series,
    (BUNDLES, rf"{NAMED}/{HASH}/[A-Z]+/[0-9a-f]{{64}}/(bundle\.json|model\.onnx)"): read_bundle,
    (PROMOTION, rf"{NAMED}/current\.json"): read_pointer,
    (PROMOTION, rf"{NAMED}/{HASH}/current\.json"): read_config_pointer,
    (RUNS, rf"{NAMED}/{RUN}/run\.json"): read_run,
    (RUNS, rf"{NAMED}/{RUN}/announced\.json"): read_announced,
    (RUNS, rf"{NAMED}/{RUN}/stages/(?P<name>[a-z-]+)\.json"): read_stage,
    (RUNS, rf"{NAMED}/{RUN}/expected\.json"): read_expected,
    (RUNS, rf"{NAMED}/{RUN}/trained/(?P<name>[A-Z]+)\.json"): read_trained,
    (RUNS, rf"{NAMED}/{RUN}/scoreboard-{HASH}\.json"): read_scoreboard,
    (RUNS, rf"{NAMED}/{RUN}/decision\.json"): read_decision,
    (RUNS, rf"{NAMED}/{RUN}/outcome\.json"): read_outcome,
    (RUNS, rf"{NAMED}/{RUN}/inference\.json"): read_inference,
    (RUNS, rf"{NAMED}/{RUN}/forecast\.json"): read_forecast,
    (RUNS, rf"{NAMED}/{RUN}/attempts/(?P<name>forecast-{EVENT})\.json"): read_forecast_attempts,
    (RUNS, rf"{NAMED}/{RUN}/attempts/(?P<name>[a-z-]+)/{EVENT}-(?P<number>\d+)\.json"): read_attempt,
    (RUNS, rf"{NAMED}/jobs/{HASH}\.json"): read_job,
    (RUNS, rf"_open/{RUN}/{NAMED}"): read_open_mark,
    (RUNS, rf"_index/{RUN}/{NAMED}"): read_index_mark,
    (RUNS, rf"_forecasts/{RUN}/{NAMED}"): read_forecast_mark,
    (RUNS, r"_leases/(?P<name>[a-z0-9-]+)\.json"): read_lease,
    (RUNS, rf"_operations/{NAMED}/{RUN}\.json"): read_operation,
    (RUNS, rf"_operations/_all/{RUN}\.json"): read_own_operation,
    (RUNS, rf"_deleted/{NAMED}\.json"): read_tombstone,
    (RUNS, rf"_idempotency/{HASH}\.json"): read_idempotency_key,
    (RUNS, r"_spool/[A-Za-z0-9._-]+\.json"): read_spooled,
    (RUNS, r"_dead-letters/(?P<name>[a-z-]+)/replayed/(?P<uid>[0-9a-f-]+)\.json"): read_replay_mark,
    (LOGS, rf"{NAMED}/date=[0-9-]+/{RUN}\.parquet"): read_forecast_table,
    (LOGS, rf"{NAMED}/date=[0-9-]+/{RUN}\.jsonl"): read_forecast_log,
}
"""The reader of each kind of object, by bucket and pattern of the key."""


def matching(unpacked: Unpacked, kind: tuple[str, str]) -> list[Found]:
    bucket, pattern = kind
    matches = (re.fullmatch(rf"{bucket}/(?P<key>{pattern})", name) for name in unpacked.release.objects)
    return [match for match in matches if match]


@pytest.mark.parametrize("kind", KINDS, ids=[reader.__name__ for reader in KINDS.values()])
def test_objects_of_every_kind_are_read(unpacked: Unpacked, kind: tuple[str, str]) -> None:
    for match in matching(unpacked, kind):
        KINDS[kind](unpacked, match)


def test_every_kind_is_among_the_objects_of_a_release() -> None:
    names = {name for release in RELEASES for name in release.objects}
    missing = [kind for kind in KINDS if not any(re.fullmatch("/".join(kind), name) for name in names)]
    assert missing == []


def test_no_object_is_of_an_unknown_kind(unpacked: Unpacked) -> None:
    known = {match[0] for kind in KINDS for match in matching(unpacked, kind)}
    assert set(unpacked.release.objects) - known == set()


def test_the_runs_that_were_left_unfinished_are_open(unpacked: Unpacked) -> None:
    left = {(run["identifier"], run["pipeline_run_id"]) for run in unpacked.release.expected["unfinished"]}
    assert set(unpacked.run_store.runs.unfinished()) == left
    assert [name.identifier for name in unpacked.run_store.runs.unannounced()] == ["recorded"]


# Hashes: this release must compute the hashes that the older release stored


def test_the_same_data_and_settings_have_the_config_hash_that_they_had(unpacked: Unpacked, environment: None) -> None:
    del environment
    hashed = 0
    for key in (match["key"] for match in matching(unpacked, (RUNS, rf"{NAMED}/{RUN}/stages/preprocess\.json"))):
        identifier, run, *_ = key.split("/")
        event = starting_event(unpacked.run_store.runs.read(identifier, run) or {})
        assert isinstance(event, RawData)
        settings = PreprocessSettings().with_overrides(event.settings)
        test = event.test.sha256 if event.test else None
        digest = config_hash(settings, train_sha256=event.train.sha256, test_sha256=test)
        assert unpacked.has(PROCESSED, f"{identifier}/{digest}/processed_data.meta.json"), (identifier, run)
        hashed += 1
    assert hashed


def test_a_job_that_was_done_is_not_started_again(
    unpacked: Unpacked, environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    del environment
    (job,) = matching(unpacked, (RUNS, rf"{NAMED}/jobs/{HASH}\.json"))
    monkeypatch.setenv("DATASET_NAME", job["identifier"])

    assert DatasetJob(unpacked.store, unpacked.run_store, JobSettings()).prepare() is None


@pytest.fixture
def environment(unpacked: Unpacked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment to the settings of the release."""
    for name, value in {**ENVIRONMENT, **unpacked.release.expected["environment"]}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STORE_PATH", str(unpacked.home / "store"))


# Records of the topics: this release must read what the older release published


@pytest.mark.parametrize("topic", WRITTEN, ids=lambda topic: topic.name)
def test_every_record_of_a_topic_is_understood(unpacked: Unpacked, topic: topics.Topic) -> None:
    records = [record for record in unpacked.release.good_records if record.topic == topic.name]
    assert records, "a release leaves records on every topic"
    for record in records:
        event = decode(topic, record.value, record.headers)
        assert event.identifier.encode() == record.key
        if topic is not topics.MODEL_SELECTED or isinstance(event, ModelSelected):
            assert record.content.items() >= json.loads(event.model_dump_json(exclude_unset=True)).items()


def test_every_dead_letter_is_understood(unpacked: Unpacked) -> None:
    letters = [letter_of(record) for record in unpacked.release.dead_letters]
    heads = [head_of(letter) for letter in letters]
    assert {letter.group for letter in letters} == {"preprocess", "train-gru", "train-lstm", "nonml-prophet"}
    assert {head.error_code for head in heads} == {"not_json", "object_not_found"}
    assert all(head.attempts >= 0 and head.source[1] >= 0 and head.error for head in heads)
    given = {name for record in unpacked.release.good_records for name, _ in record.headers}
    assert {name for letter in letters for name, _ in letter.original_headers()} <= given | {"replay-of"}


def letter_of(record: Logged) -> Letter:
    group = topics.group_of_dead_letters(record.topic)
    assert group is not None
    return Letter(group, 0, 0, NOW, record.key, record.value, list(record.headers))


# Stages of a champion: pointers of an older release are decided, and move as they did


def test_pointers_of_a_release_move_as_they_did_and_can_be_refitted(unpacked: Unpacked, tmp_path: Path) -> None:
    pointers = Pointers(Records(folder_store(tmp_path), PROMOTION))
    moved = 0
    for name, stored in unpacked.run_store.pointers.champions().items():
        document = {field: value for field, value in stored.items() if field != "previous"}
        older = {**document, "pipeline_run_id": "00000000-0000-7000-8000-000000000000"}
        newer = {**document, "pipeline_run_id": new_pipeline_run_id()}
        before = stored["previous"]
        assert "stage" not in document
        if before is not None:
            assert pointers.move_current(name, before) == "moved"
        assert pointers.move_current(name, document) == "moved"
        assert pointers.champions()[name] == stored

        assert pointers.move_current(name, document) == "same"
        assert pointers.move_current(name, older) == "superseded"
        assert pointers.move_current(name, {**newer, "stage": "provisional"}) == "superseded"
        assert pointers.champions()[name] == stored
        refitted = {**document, "stage": "refitted"}
        assert pointers.move_current(name, refitted) == "moved"
        assert pointers.champions()[name] == {**refitted, "previous": before}
        assert pointers.move_current(name, document) == "superseded"
        assert pointers.move_current(name, newer) == "moved"
        assert pointers.champions()[name] == {**newer, "previous": refitted}
        moved += before is not None
    assert moved, "one of the champions replaced another one"


def test_a_release_reads_the_cached_champions_of_every_stage(unpacked: Unpacked, tmp_path: Path) -> None:
    identifier = next(unpacked.cache.identifiers())
    cache = ChampionCache(tmp_path / "cache")
    [folder] = unpacked.cache.folders(identifier)
    promotion = unpacked.cache.read_promotion(identifier, folder)
    data = [(folder / name).read_bytes() for name in ("bundle.json", "model.onnx")]
    cache.put_bundle(Promotion.read(identifier, {**promotion.document, "stage": "refitted"}), *data)
    code = (
        "import sys; from pathlib import Path; from inference_container.cache import ChampionCache;"
        "cache = ChampionCache(Path(sys.argv[1])); [folder] = cache.folders(sys.argv[2]);"
        "promotion = cache.read_promotion(sys.argv[2], folder);"
        "bundle, _ = cache.read_bundle(promotion, folder); assert cache.holds(promotion);"
        "print(bundle.model_type, promotion.pipeline_run_id)"
    )
    older = code_of(unpacked.release.commit, tmp_path / "code")

    command = [sys.executable, "-c", code, str(cache.path), identifier]
    done = subprocess.run(command, cwd=older, capture_output=True, text=True, check=True)

    assert done.stdout.split() == [promotion.model_type, promotion.pipeline_run_id]


# The cache of an inference replica: this release must serve from the cache of the older release


def test_the_cached_champions_answer_as_they_did(unpacked: Unpacked) -> None:
    metrics = Metrics(CollectorRegistry())
    champions = Champions(unpacked.cache, metrics, default_identifier=None, max_loaded=10, max_horizon_steps=2016)
    champions.read_disk()
    assert champions.known

    async def ask() -> list[Any]:
        predictor = Predictor(
            champions, Batcher(max_waiting=10, deadline_seconds=30), metrics, max_rows=1000, forecast_log=None
        )
        bodies = [json.dumps(one["request"]).encode() for one in unpacked.release.expected["champions"]]
        return [json.loads(await predictor.predict(body)) for body in bodies]

    answers = asyncio.run(ask())
    assert {answer["model_type"] for answer in answers} == set(MODELS)
    for answer, one in zip(answers, unpacked.release.expected["champions"], strict=True):
        assert_same_answer(answer, one["answer"])
