"""Check the invariants of a pipeline, whatever happened to its processes, in the store, in Kafka and in MLflow.

- A run has exactly one decision, and every record and message agrees with it. Beside it, a run has at most one
  provisional and one refitted champion.
- Every object that a record refers to exists and has the promised hash; every record can be read.
- No data set is lost, and no repeated training gave a different result.
- sent = done + in flight + dead letters.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import httpx
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from flts.contracts import topics
from flts.contracts.champion_stage import PROVISIONAL, REFITTED, is_champion, order_of, selected_event_id
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.ids import derived_event_id, derived_run_id
from flts.contracts.lifecycle import is_cancellation
from flts.dead_letters.accounting import Account, Accounting
from flts.errors import ObjectNotFoundError
from flts.settings import KafkaSettings, StoreSettings
from flts.storage.connect import open_store
from flts.storage.ports import ObjectStore
from flts.trainers import BASELINES, RECORDED_BY_EVAL
from tests.eventually import eventually
from tests.stack import RunningStack

Record = dict[str, Any]
Records = Mapping[str, Record | None]
CLAIM = ("bucket", "object_key", "size", "sha256")
VOLATILE = ("created_at", "duration_seconds", "mlflow_run_id", "reused")
"""Fields in which a repeated message may differ from the first one."""
DECIDED = ("promoted", "kept", "refused", "superseded")
TOLD = tuple(topic.name for topic in topics.ALL if topic is not topics.RUN_PROGRESS)


def audit(
    stack: RunningStack, identifier: str, run_id: str, *, store: ObjectStore | None = None, settle: float = 90
) -> None:
    """Assert every invariant for a run that has ended and for its identifier.

    The effects that follow a run's outcome (its message, the removal of its attempts) have ``settle`` seconds.
    """
    store = store or store_of(stack)

    def sound() -> bool:
        problems = list(_problems(stack, store, identifier, run_id))
        assert not problems, "; ".join(problems)
        return True

    eventually(sound, f"{identifier}, run {run_id}, is sound", timeout=settle, every=0.5)


def audit_at_rest(stack: RunningStack, *, timeout: float = 60) -> list[Account]:
    """Assert that nothing is in flight and that the sum holds; return the accounts."""

    def at_rest() -> list[Account]:
        found = accounts(stack)
        waiting = [f"{one.topic} of {one.group}: {one.in_flight}" for one in found if one.in_flight]
        assert not waiting, f"in flight: {', '.join(waiting)}"
        return found

    found = eventually(at_rest, "every group has done what was sent", timeout=timeout, every=0.3)
    problems = list(_of_accounts(found))
    assert not problems, "; ".join(problems)
    return found


def accounts(stack: RunningStack) -> list[Account]:
    """Return the account of each group and topic."""
    return Accounting(KafkaSettings(kafka_bootstrap_servers=stack.state["kafka"]), "audit").accounts()


def store_of(stack: RunningStack) -> ObjectStore:
    """Return the store of a stack whose store is a folder."""
    return open_store(StoreSettings(store="filesystem", store_path=stack.store))


def records_of(store: ObjectStore, identifier: str) -> dict[str, Record | None]:
    """Return every JSON record of an identifier by bucket and key; None for one that cannot be read."""
    found: dict[str, Record | None] = {}
    for bucket in ("pipeline-runs", "model-promotion"):
        for info in list(store.list(bucket, f"{identifier}/")):
            try:
                record = json.loads(store.get(bucket, info.key)[0])
            except ObjectNotFoundError:  # a service removed the object after list() returned its name
                continue
            except ValueError:
                record = None
            found[f"{bucket}/{info.key}"] = record if isinstance(record, dict) else None
    return found


def claims_in(value: object) -> Iterator[ClaimCheck]:
    """Yield every claim anywhere inside a record or message."""
    if isinstance(value, dict):
        if all(name in value for name in CLAIM):
            yield ClaimCheck.model_validate(value)
        for part in value.values():
            yield from claims_in(part)
    elif isinstance(value, list):
        for part in value:
            yield from claims_in(part)


def messages(address: str, names: Iterable[str], key: str | None = None) -> list[tuple[str, bytes]]:
    """Return the topic and value of every record that these topics hold now, of one key if given."""
    reader = Consumer({"bootstrap.servers": address, "group.id": "audit", "enable.auto.commit": False})
    try:
        known = reader.list_topics(timeout=10).topics
        parts = [TopicPartition(name, part, OFFSET_BEGINNING) for name in names for part in known[name].partitions]
        ends = {
            (part.topic, part.partition): end
            for part in parts
            if (end := reader.get_watermark_offsets(part, timeout=10)[1]) > 0
        }
        reader.assign([part for part in parts if (part.topic, part.partition) in ends])
        found = []
        while ends:
            message = reader.poll(10)
            assert message is not None, f"nothing more came, expected were {ends}"
            assert message.error() is None, message.error()
            place = (str(message.topic()), message.partition() or 0)
            if key is None or message.key() == key.encode():
                found.append((place[0], message.value() or b""))
            if place in ends and (message.offset() or 0) + 1 >= ends[place]:
                del ends[place]
        return found
    finally:
        reader.close()


def _problems(stack: RunningStack, store: ObjectStore, identifier: str, run_id: str) -> Iterator[str]:
    records = records_of(store, identifier)
    found = accounts(stack)
    yield from _of_objects(store, records)
    yield from _of_decision(store, records, identifier, run_id)
    yield from _of_training(records)
    yield from _of_messages(stack.state["kafka"], store, identifier, {one.group for one in found})
    yield from _of_accounts(found)
    yield from _of_mlflow(stack.state["mlflow_url"], store, records, identifier)


def _of_objects(store: ObjectStore, records: Records) -> Iterator[str]:
    """Yield the records that cannot be read and the claims that do not hold, those of the raw data included."""
    checked: set[tuple[str, ...]] = set()
    for name, record in records.items():
        if record is None:
            yield f"{name} cannot be read"
        for claim in claims_in(record):
            seen = (claim.bucket, claim.object_key, claim.sha256)
            if seen not in checked:
                checked.add(seen)
                yield from (f"{name}: {problem}" for problem in _of_claim(store, claim))


def _of_claim(store: ObjectStore, claim: ClaimCheck) -> Iterator[str]:
    place = f"{claim.bucket}/{claim.object_key}"
    try:
        data, _ = store.get(claim.bucket, claim.object_key)
    except ObjectNotFoundError:
        yield f"{place} is missing"
        return
    if (len(data), hashlib.sha256(data).hexdigest()) != (claim.size, claim.sha256):
        yield f"{place} is not what was promised"
    elif claim.object_key.endswith("/bundle.json"):
        bundle = json.loads(data)
        folder = claim.object_key.rpartition("/")[0]
        size, sha256 = bundle["model_size"], bundle["model_sha256"]
        model = ClaimCheck(bucket=claim.bucket, object_key=f"{folder}/model.onnx", size=size, sha256=sha256)
        yield from _of_claim(store, model)


def _of_decision(store: ObjectStore, records: Records, identifier: str, run_id: str) -> Iterator[str]:
    folder = f"pipeline-runs/{identifier}/{run_id}"
    of_run = [name for name in records if name.startswith(f"{folder}/")]
    outcome = (records.get(f"{folder}/outcome.json") or {}).get("outcome")
    decided = (records.get(f"{folder}/decision.json") or {}).get("decision")
    decisions = [name for name in of_run if "/decision" in name]
    if f"{folder}/run.json" not in records:
        yield "the run has no run.json"
    if outcome is None:
        yield "the run has no outcome"
    if outcome in {*DECIDED, "cancelled"} and decisions != [f"{folder}/decision.json"]:
        yield f"decisions of a run that ended as {outcome}: {decisions}"
    # A run with the decision "promoted" ends as superseded if a newer run was promoted first, so this pair is no fault.
    if outcome in DECIDED and decided != outcome and (decided, outcome) != ("promoted", "superseded"):
        yield f"decided as {decided}, ended as {outcome}"
    if list(store.list("pipeline-runs", f"_open/{run_id}/")):
        yield "the run has ended and is still marked as open"
    # An inference worker that is killed right after it wrote forecast.json leaves the record of its attempt. The record
    # remains until the run is removed. So the audit accepts records under "attempts/forecast".
    if left := [name for name in of_run if "/attempts/" in name and "/attempts/forecast" not in name]:
        yield f"tries that nobody cleared: {left}"
    pointer = records.get(f"model-promotion/{identifier}/current.json")
    if outcome == "promoted" and (
        pointer is None or not is_champion(pointer) or str(pointer["pipeline_run_id"]) < run_id
    ):
        yield f"the pointer was not moved: {pointer and pointer['pipeline_run_id']}"
    provisional = records.get(f"{folder}/provisional.json")
    if provisional is not None and provisional["event_id"] != selected_event_id(run_id, PROVISIONAL):
        yield "the provisional champion has the event_id of another stage"
    yield from _of_refit(records.get(f"{folder}/refit.json"), pointer, run_id)


def _of_refit(refit: Record | None, pointer: Record | None, run_id: str) -> Iterator[str]:
    if refit is None:
        return
    if refit["event_id"] != selected_event_id(run_id, REFITTED):
        yield "the refitted champion has the event_id of another stage"
    if refit["pointer"] and (pointer is None or order_of(pointer) < order_of(refit["pointer"])):
        yield "the pointer was not moved to the refitted champion"


def _of_training(records: Records) -> Iterator[str]:
    """Yield trainings whose run_id is repeated or not derivable, and bundle keys with more than one content."""
    trainings: Counter[str] = Counter()
    bundles: dict[str, set[str]] = {}
    for name, record in records.items():
        if record is None or "/trained/" not in name:
            continue
        if record["status"] == "SUCCESS":
            bundles.setdefault(record["bundle"]["object_key"], set()).add(record["bundle"]["sha256"])
        started_by = records.get("/".join([*name.split("/")[:3], "run.json"])) or {}
        if started_by.get("of_run"):
            continue  # this run only evaluated another run's models and trained none
        trainings[record["run_id"]] += 1
        event_id = derived_event_id(started_by["event_id"], "training-data")
        if record["run_id"] != derived_run_id(event_id, record["model_type"]):
            yield f"{name} has a run_id that a repeat would not have"
    yield from (f"{key} was trained to {len(found)} results" for key, found in bundles.items() if len(found) > 1)
    yield from (f"the run_id {run_id} has {count} trainings" for run_id, count in trainings.items() if count > 1)


def _of_messages(address: str, store: ObjectStore, identifier: str, groups: Iterable[str]) -> Iterator[str]:
    """Yield event ids with differing messages, runs with several decisions, and dead letters with false claims."""
    letters = {topics.dead_letter_topic(group) for group in groups}
    said: dict[tuple[str, str], set[str]] = {}
    selected: dict[str, set[str]] = {}
    for topic, value in messages(address, [*TOLD, *letters], identifier):
        content = _content(value)
        if topic in letters:
            for claim in claims_in(content):
                yield from (f"a dead letter of {topic}: {problem}" for problem in _of_claim(store, claim))
        elif "event_id" in content:
            said.setdefault((topic, content["event_id"]), set()).add(_lasting(content))
            if topic == topics.MODEL_SELECTED.name:
                selected.setdefault(content["pipeline_run_id"], set()).add(content["event_id"])
    for (topic, event_id), variants in said.items():
        if len(variants) > 1:
            yield f"{topic} says different things as {event_id}: {sorted(variants)}"
    for run, ids in selected.items():
        decisions = ids - {selected_event_id(run, stage) for stage in (PROVISIONAL, REFITTED)}
        if len(decisions) > 1:
            yield f"{len(decisions)} decisions of {run} were published"


def _content(value: bytes) -> Record:
    try:
        content = json.loads(value)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _lasting(content: Record) -> str:
    return json.dumps({name: part for name, part in content.items() if name not in VOLATILE}, sort_keys=True)


def _of_accounts(found: Iterable[Account]) -> Iterator[str]:
    return (f"the sum does not hold: {one}" for one in found if not one.holds)


def _of_mlflow(mlflow_url: str, store: ObjectStore, records: Records, identifier: str) -> Iterator[str]:
    """Yield trainings that MLflow lacks or has twice, and a champion alias off the pointer; skip those in the spool."""
    waiting = " ".join(info.key for info in store.list("pipeline-runs", "_spool/"))
    with httpx.Client(base_url=f"{mlflow_url}/api/2.0/mlflow", timeout=30) as mlflow:
        recorded = _recorded(mlflow, identifier)
        for name, record in records.items():
            if record is None or "/trained/" not in name or record["status"] != "SUCCESS":
                continue
            if record["model_type"] in BASELINES:  # baselines have no run in MLflow
                continue
            if record["model_type"] in RECORDED_BY_EVAL and not _decided_by_eval(records, name, record["model_type"]):
                continue
            states = recorded.get(record["run_id"], [])
            waits = len(states) <= 1 and record["run_id"] in waiting
            if states != ["FINISHED"] and not waits:
                yield f"MLflow has {name} as {states or 'nothing'}"
        pointer = records.get(f"model-promotion/{identifier}/current.json")
        if pointer is not None and is_champion(pointer) and f"champion-{identifier}" not in waiting:
            champion = _champion(mlflow, identifier)
            if champion != pointer["run_id"]:
                yield f"MLflow's champion is {champion}, the pointer's {pointer['run_id']}"


def _decided_by_eval(records: Records, name: str, model_type: str) -> bool:
    """Return whether the run of a record ``.../trained/...`` waited for the model type and was not cancelled."""
    run, _, _ = name.partition("/trained/")
    expected, decision = (records.get(f"{run}/{part}.json") for part in ("expected", "decision"))
    wanted = expected is not None and model_type in expected["model_types"]
    return wanted and decision is not None and not is_cancellation(decision)


def _recorded(mlflow: httpx.Client, experiment: str) -> dict[str, list[str]]:
    """Return the states of MLflow's runs by FLTS's run_id."""
    answer = mlflow.get("/experiments/get-by-name", params={"experiment_name": experiment})
    if answer.status_code == httpx.codes.NOT_FOUND:
        return {}
    number = answer.raise_for_status().json()["experiment"]["experiment_id"]
    runs = mlflow.post("/runs/search", json={"experiment_ids": [number], "max_results": 1000}).raise_for_status()
    found: dict[str, list[str]] = {}
    for run in runs.json().get("runs", []):
        found.setdefault(_tag(run["data"], "run_id"), []).append(run["info"]["status"])
    return found


def _champion(mlflow: httpx.Client, name: str) -> str | None:
    answer = mlflow.get("/registered-models/alias", params={"name": name, "alias": "champion"})
    return _tag(answer.json()["model_version"], "run_id") if answer.is_success else None


def _tag(of: Mapping[str, Any], name: str) -> str:
    return next((str(tag["value"]) for tag in of.get("tags", []) if tag["key"] == name), "")
