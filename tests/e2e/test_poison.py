"""Messages that no service can process: each group dead-letters them with the reason; a replay repairs some of them."""

from __future__ import annotations

import contextlib
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from flts.contracts.events import (
    Event,
    ModelSelected,
    PerformanceEval,
    RawData,
    RefitRequest,
    RunProgress,
    TrainingData,
)
from flts.contracts.ids import new_pipeline_run_id
from flts.contracts.lifecycle import RunState
from flts.contracts.topics import ALL
from flts.storage.ports import ObjectStore
from flts.storage.run_store import RunStore
from tests.brokers import Bus
from tests.eventually import eventually
from tests.pipeline import Pipeline
from tests.poison import CLAIMED, CODES, UNREADABLE, Poison, has_claim, poison
from tests.reports import report
from tests.trainers import INSTALLED, LONG_TYPES

pytestmark = [pytest.mark.timeout(300), pytest.mark.long]

NAME = "poison"
GROUPS = {
    "raw-data": ("preprocess",),
    "training-data": (*INSTALLED, "eval"),
    "inference-data": ("inference-worker",),
    "model-training": ("eval",),
    "model-refit": (*INSTALLED, "eval"),
}
"""Consumer groups that dead-letter an unreadable message, by topic; topics without such a group are omitted."""
MENDED = {"raw-data": ("preprocess",), "training-data": INSTALLED, "inference-data": ("inference-worker",)}
"""Groups that dead-letter a message with a wrong claim. Eval reads the objects later, and its gate names the error."""
ONCE = Counter((kind, status) for kind in LONG_TYPES for status in ("FAILED", "SUCCESS"))
READING_ALL = {topic.name: ["fastapi-app"] for topic in ALL} | {
    "model-selected": ["fastapi-app", "inference", "inference-worker"],
    "model-training": ["fastapi-app", "eval"],
    "run-progress": ["fastapi-app", "eval"],
}


@dataclass
class Scene:
    """A pipeline with a decided run, whose messages are the patterns of the poison."""

    stack: Pipeline
    bus: Bus
    store: ObjectStore
    run_store: RunStore
    run: dict[str, Any]

    def patterns(self) -> dict[str, Event]:
        """Return a good message of each topic."""
        name = (NAME, self.run["pipeline_run_id"])
        raw = RawData.model_validate(self.run_store.runs.read(*name))
        training = TrainingData.model_validate((self.run_store.evaluations.expected(*name) or {})["training_data"])
        inference = self.run_store.forecasts.inference(*name)
        assert inference is not None
        trained = self.run_store.evaluations.trained(*name)["GRU"]
        base = raw.model_dump(include={"event_id", "identifier", "pipeline_run_id", "created_at"})
        return {
            "raw-data": raw,
            "training-data": training,
            "inference-data": inference,
            "model-training": trained,
            "model-refit": RefitRequest(**training.model_dump(), model_type="GRU", judged=trained.bundle),
            "model-selected": ModelSelected(**base, decision="promoted", bundle=trained.bundle),
            "run-progress": RunProgress(**base, service="tests", stage="eval", state="running"),
            "performance-eval": PerformanceEval(**base, status="done", log=inference.raw_test),
        }

    def poison(self, kind: str, topic: str) -> Poison:
        """Return poison with a new run id; a run with a wrong claim is also recorded, and marked as announced."""
        pattern = self.patterns()[topic]
        run, event_id = new_pipeline_run_id(), str(uuid.uuid4())
        if kind in CLAIMED:
            raw = RawData.model_validate(self.run_store.runs.read(NAME, self.run["pipeline_run_id"]))
            self.run_store.runs.create(raw.model_copy(update={"pipeline_run_id": run, "event_id": event_id}))
            self.run_store.runs.mark_announced(NAME, run)
        # The test forces new work. Otherwise the service would reuse the results of the run whose event the test
        # copied, and would not read the damaged claim.
        forced = {"force": True} if "force" in type(pattern).model_fields else {}
        event = pattern.model_copy(update={"pipeline_run_id": run, "event_id": event_id, **forced})
        return poison(kind, event, self.store)

    def dropped(self, service: str, topic: str) -> float:
        text = httpx.get(f"{self.stack.state['health'][service]}/metrics").text
        sample = f'flts_messages_total{{outcome="dropped",topic="{topic}"}}'
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(sample))

    def letters(self, group: str) -> list[dict[str, Any]]:
        with self.stack.gateway as client:
            answer = client.get(f"/dead-letters/{group}", params={"identifier": NAME, "limit": 1_000})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["letters"])

    def accounts(self) -> dict[tuple[str, str], dict[str, Any]]:
        with self.stack.gateway as client:
            groups = client.get("/dead-letters").json()["groups"]
        return {(each["topic"], each["group"]): each for group in groups for each in group["accounts"]}

    def replay(self, group: str, **body: Any) -> dict[str, Any]:
        with self.stack.gateway as client:
            answer = client.post(f"/dead-letters/{group}/replay", json={"reason": "mended", "by": "tests", **body})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@pytest.fixture(scope="module")
def scene(stack: Pipeline, swinging: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    run = stack.wait_decided(stack.upload(NAME, *swinging))
    name = (NAME, run["pipeline_run_id"])
    store, run_store = stack.objects, stack.run_store
    eventually(lambda: run_store.forecasts.read(*name), "the first run's forecast", timeout=60)
    with contextlib.closing(Bus(stack.state["kafka"], tmp_path_factory.mktemp("bus"))) as bus:
        yield Scene(stack, bus, store, run_store, run)
        for mine in run_store.runs.unfinished():
            if mine.identifier == NAME:  # the gateway's outbox would announce a run that has not ended
                run_store.runs.put_outcome(*mine, RunState.CANCELLED, reason="the test is over")


@pytest.fixture(scope="module")
def poisoned(scene: Scene, swinging: tuple[Path, Path]) -> tuple[list[Poison], dict[str, Any]]:
    """Publish each kind of poison on each topic that it applies to, with a good upload among them."""
    before = {
        (service, topic): scene.dropped(service, topic) for topic in READING_ALL for service in READING_ALL[topic]
    }
    made = [
        scene.poison(kind, topic)
        for topic in scene.patterns()
        for kind in CODES
        if kind not in CLAIMED or has_claim(scene.patterns()[topic])
    ]
    half = len(made) // 2
    for each in made[:half]:
        each.publish(scene.bus.publisher)
    good = scene.stack.upload(NAME, *swinging)
    for each in made[half:]:
        each.publish(scene.bus.publisher)
    return made, {"run": scene.stack.wait_decided(good), "dropped": before}


def expected_letters(made: list[Poison]) -> Counter[tuple[str, str, str, int]]:
    """Return the expected number of dead letters for each (group, topic, error code, attempts)."""
    found: Counter[tuple[str, str, str, int]] = Counter()
    for each in made:
        for group in GROUPS.get(each.topic, ()):
            if each.kind in UNREADABLE:
                found[group, each.topic, CODES[each.kind], 0] += 1
            elif group in MENDED.get(each.topic, ()):
                found[group, each.topic, CODES[each.kind], 1] += 1
    return found


def test_every_poison_is_given_up_by_the_groups_that_read_it_with_its_reason(
    scene: Scene, poisoned: tuple[list[Poison], dict[str, Any]]
) -> None:
    made, _ = poisoned
    wanted = expected_letters(made)

    def all_there() -> bool:
        found = Counter(
            (group, letter["topic"], letter["error_code"], letter["attempts"])
            for group in {group for group, *_ in wanted}
            for letter in scene.letters(group)
        )
        assert found >= wanted, wanted - found
        return True

    eventually(all_there, "all dead letters", timeout=60, every=0.5)
    table = [
        {"topic": topic, "group": group, "error_code": code, "tries": tries, "letters": count}
        for (group, topic, code, tries), count in sorted(wanted.items(), key=lambda item: item[0][1::-1])
    ]
    report("poison", table)


def test_a_good_run_among_the_poison_is_decided(poisoned: tuple[list[Poison], dict[str, Any]]) -> None:
    _, about = poisoned

    assert about["run"]["outcome"] in {"promoted", "kept"}, about["run"]["decision"]


def test_replicas_that_read_everything_drop_poison_and_go_on(
    scene: Scene, poisoned: tuple[list[Poison], dict[str, Any]]
) -> None:
    _, about = poisoned

    def counted() -> bool:
        for (service, topic), before in about["dropped"].items():
            if service == "inference" and scene.stack.replicas > 1:
                continue  # the metrics are those of one replica; the log, which is checked below, has all replicas
            assert scene.dropped(service, topic) - before == len(UNREADABLE), (service, topic)
        return True

    eventually(counted, "six dropped messages per topic and replica", timeout=30)
    everywhere = Counter(
        {code: n * scene.stack.replicas for code, n in Counter(CODES[kind] for kind in UNREADABLE).items()}
    )

    def logged() -> bool:
        entries = scene.stack.log_events("inference", "message_dropped")
        assert Counter(entry["error_code"] for entry in entries) == everywhere
        return True

    eventually(logged, "every replica of inference has dropped them", timeout=30, every=0.5)
    served = scene.stack.wait_served(NAME, champion(scene)["run_id"])
    assert served["identifier"] == NAME


@pytest.fixture(scope="module")
def mended(scene: Scene, poisoned: tuple[list[Poison], dict[str, Any]]) -> list[Poison]:
    """Write the objects that the wrong claims name; return these messages, which are not replayed yet."""
    found = [each for each in poisoned[0] if each.kind in CLAIMED and each.topic in MENDED]
    for each in found:
        each.mend(scene.store)
    for each in of_topic(found, "training-data"):
        scene.stack.wait_decided(each.event.pipeline_run_id)  # eval decides the run without the failed models
    for each in of_topic(found, "inference-data"):
        scene.run_store.runs.put_outcome(
            NAME, each.event.pipeline_run_id, RunState.KEPT
        )  # when the run has an outcome, the inference worker forecasts its test rows with the champion
    return found


@pytest.fixture(scope="module")
def replayed(scene: Scene, mended: list[Poison]) -> dict[str, Any]:
    """Replay the mended messages twice; return the earlier decisions and the earlier number of dead letters."""
    decided = {each.event.pipeline_run_id: decision(scene, each) for each in of_topic(mended, "training-data")}
    letters = {}
    for group in (group for topic in MENDED for group in MENDED[topic]):
        found = scene.letters(group)
        letters[group] = len(found)
        codes = {CODES[kind] for kind in CLAIMED}
        ids = [letter["id"] for letter in found if letter["error_code"] in codes]
        first, second = scene.replay(group, ids=ids), scene.replay(group, ids=ids)
        assert (first["replayed"], first["refused"]) == (2, 0), first
        assert (second["replayed"], second["already_replayed"]) == (0, 2), second
    return {"decided": decided, "letters": letters}


@pytest.mark.usefixtures("replayed")
def test_mended_uploads_are_replayed_to_their_decision_once(scene: Scene, mended: list[Poison]) -> None:
    for each in of_topic(mended, "raw-data"):
        run = scene.stack.wait_decided(each.event.pipeline_run_id)
        assert run["outcome"] in {"promoted", "kept", "superseded"}, run["decision"]
        assert produced(scene, "training-data", each) == 1
        assert len(scene.stack.decisions(NAME, each.event.pipeline_run_id)) == 1


def test_mended_data_sets_are_trained_and_announced_and_their_run_is_decided_no_second_time(
    scene: Scene, mended: list[Poison], replayed: dict[str, Any]
) -> None:
    for each in of_topic(mended, "training-data"):
        eventually(lambda each=each: trained(scene, each) >= ONCE, "each model has failed once and was trained once")
        assert set(trained(scene, each).values()) == {1}
        assert decision(scene, each) == replayed["decided"][each.event.pipeline_run_id]
        assert len(scene.stack.decisions(NAME, each.event.pipeline_run_id)) == 1


@pytest.mark.usefixtures("replayed")
def test_mended_test_rows_are_forecast_once(scene: Scene, mended: list[Poison]) -> None:
    for each in of_topic(mended, "inference-data"):
        eventually(
            lambda each=each: scene.run_store.forecasts.read(NAME, each.event.pipeline_run_id), "a forecast", timeout=30
        )
        assert produced(scene, "performance-eval", each) == 1


def test_after_the_replay_nothing_died_again_and_the_sum_holds(scene: Scene, replayed: dict[str, Any]) -> None:
    def settled() -> bool:
        for account in scene.accounts().values():
            assert account["in_flight"] == 0, account
        return True

    eventually(settled, "nothing in flight", timeout=60, every=0.5)
    for group, before in replayed["letters"].items():
        assert len(scene.letters(group)) == before, f"a message replayed to {group} died again"
    parts = ("topic", "group", "sent", "done", "in_flight", "dead_letters", "replayed", "holds")
    accounts = [{name: account[name] for name in parts} for account in scene.accounts().values()]
    report("poison-replayed", accounts)
    assert all(account["holds"] for account in accounts)


def of_topic(made: list[Poison], topic: str) -> list[Poison]:
    return [each for each in made if each.topic == topic]


def champion(scene: Scene) -> dict[str, Any]:
    pointer = scene.run_store.pointers.current(NAME)
    assert pointer is not None
    return dict(pointer[0])


def decision(scene: Scene, each: Poison) -> dict[str, Any] | None:
    return scene.run_store.evaluations.decision(NAME, each.event.pipeline_run_id)


def produced(scene: Scene, topic: str, each: Poison) -> int:
    """Return the number of messages of the poison's run on a topic, without the poison and its replays."""
    return len(values_of_run(scene, topic, each))


def trained(scene: Scene, each: Poison) -> Counter[tuple[str, str]]:
    """Return the (model type, status) of the events of the run's trainers, baselines included."""
    return Counter((value["model_type"], value["status"]) for value in values_of_run(scene, "model-training", each))


def values_of_run(scene: Scene, topic: str, each: Poison) -> list[dict[str, Any]]:
    found = [record["value"] or {} for record in scene.bus.read(topic) if "only-group" not in record["headers"]]
    mine = each.event
    return [
        value
        for value in found
        if value.get("pipeline_run_id") == mine.pipeline_run_id and value.get("event_id") != mine.event_id
    ]
