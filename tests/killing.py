"""Arm the kill points of a running pipeline, and check that a run survives the kill of a service at one of them."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from confluent_kafka import Producer

from flts.contracts.champion_stage import REFITTED
from flts.killpoints import ARMED, CLAIMED, PASSED
from flts.trainers import BASELINES, DEFAULT_MODEL_TYPES, NEVER_REFITTED, trainer_of_model
from tests.audit import audit
from tests.eventually import eventually
from tests.files_below import files_below
from tests.stack import RunningStack
from tests.trainers import INSTALLED

T = TypeVar("T")

SERVICES = (
    "fastapi-app",
    "preprocess",
    *INSTALLED,
    "eval",
    "inference",
    "inference-worker",
)
PARTITIONS = 6
SIDE_BY_SIDE = 4
"""Cases that run at a time, each in a different service: a killed service waits longer than it computes."""
EVER_AGAIN = (
    *("run-progress", "_leases/", "object-read", "message-read", "attempts/", "cache-write", "swap"),
    *("commit.before model-training", "commit.after model-training"),
    *("commit.before model-refit", "commit.after model-refit"),
    *("produce.before model-refit", "produce.after model-refit"),
)
"""Parts of points that a run passes any number of times, or once for every message: the first passage is enough.

A replica that is slow does not load the provisional champion of a run before the decided one. Eval commits the results
of several models at once if they arrive together, and so does each service with the two messages of a refit. Eval
repeats the request of a refit for each message that it handles between the decision and ``refit.json``.
"""
EARLY = "nonml-baseline"
NEED_EARLY = ("eval", "inference")
"""Services with points that only a run with a provisional champion passes. While `EARLY` restarts after a kill, the
runs of all cases are decided without one, so a case of `EARLY` runs beside no case of these services."""
ON_THEIR_OWN = ("child-start.", "child-ready.", "cache-write.before pointers", "cache-write.after pointers")
"""Prefixes of points that belong to no run: a process passes them when it starts or reads the pointers."""
_VARIABLE = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{64}|(?<=date=)[0-9-]{10}|(?<=forecast-)[0-9a-f]{2}(?=\.json)"
    rf"|(?<=/)(?:{'|'.join((*DEFAULT_MODEL_TYPES, *BASELINES))})(?=[/.])"
)
RESTART_SECONDS = 90.0
RUN_SECONDS = 180.0
CLAIM_SECONDS = 60.0
"""Seconds until a process passes a point that belongs to no run: POINTER_REFRESH_SECONDS or a start is shorter."""
LATE_SECONDS = 15.0
"""Seconds until a process passes a point of a run, counted from the end of the run and its serving."""
TRIES = 3
"""Runs of one case: a run misses the points that it passes only if one message overtakes another."""
PREDICTED_STEPS = 3


class NotPassedError(Exception):
    """A run ended and no process passed the point."""


@dataclass(frozen=True, slots=True, order=True)
class Case:
    """One kill."""

    program: str
    process: str
    """``<program>`` or ``<program>.child``."""
    point: str
    detail: str
    """A pattern; the run's own values replace ``{identifier}``, ``{partition}``, ``{key}`` and ``{lease}``."""
    hit: int = 1
    """Number of the passage of the point within the run at which the process is killed, from 1."""

    def __str__(self) -> str:
        nth = "" if self.hit == 1 else f", time {self.hit}"
        return f"{self.process} {self.point} {self.detail}{nth}"

    @property
    def on_its_own(self) -> bool:
        return f"{self.point} {self.detail}".startswith(ON_THEIR_OWN)


@dataclass(frozen=True, slots=True)
class Killed:
    """How a case ended."""

    case: Case
    identifier: str
    run_id: str
    outcome: str
    recovery_seconds: float
    """Seconds from the kill until the service is ready and the run is decided; for inference-worker: until the forecast
    is stored; for inference: until the champion is served.
    """


@dataclass
class Killing:
    """Kills services of one running stack at points of one run each.

    Parameters
    ----------
    stack : RunningStack
        Started with ``KILL_POINTS`` set to ``folder``.
    folder : Path
    train, test : Path
        Uploaded for every case, under an identifier of the case.
    """

    stack: RunningStack
    folder: Path
    train: Path
    test: Path
    settings: Mapping[str, object] = field(default_factory=dict)

    def observe(self, identifier: str) -> dict[Case, int]:
        """Follow one run without a kill; return every point that was passed, and how often."""
        began = time.time()
        run_id = self.upload(identifier)
        self.follow(identifier, run_id)
        wait_for(lambda: self._shipped(identifier), "the forecast log is in the store", 60)
        time.sleep(1)  # seconds; meanwhile the services pass the kill points after the last commit
        found: dict[Case, int] = {}
        for process, line in self._passed():
            case = _as_case(process, line, identifier)
            if case is None or (line["at"] < began and not case.on_its_own):
                continue
            found[case] = found.get(case, 0) + 1
        return found

    def kill(self, case: Case, identifier: str) -> Killed:
        """Start a run, kill the service at the case's point, and return after the run is finished and served."""
        late = case.on_its_own or "{lease}" in case.detail
        armed = None if late else self.arm(case, identifier)
        if case.point.startswith("child-") and case.program != "inference":
            # A service starts a child process during a run only after its previous child died. So the test first kills
            # the previous child, at another kill point.
            armed = self._arm_next_child(case, identifier)
        run_id = self.upload(identifier)
        if armed is None:
            if case.program == "inference":
                decision = self._record(identifier, run_id, "decision")
                wait_for(decision.exists, f"{identifier} is decided", RUN_SECONDS)
            armed = self.arm(case, identifier, run_id)
        served = self.follow(identifier, run_id)
        killed = self._claimed_at(armed, CLAIM_SECONDS if case.on_its_own else LATE_SECONDS)
        time.sleep(0.2)  # seconds; a process may answer one more request after SIGKILL; it would count as ready
        ready = self.wait_ready(case.program)
        done = {"inference": served, "inference-worker": self._written_at(identifier, run_id, "forecast")}
        decided = done.get(case.program, self._written_at(identifier, run_id, "outcome"))
        outcome = json.loads(self._record(identifier, run_id, "outcome").read_text())["outcome"]
        return Killed(case, identifier, run_id, outcome, max(decided, ready) - killed)

    def spoil(self, case: Case, identifier: str, topic: str) -> float:
        """Publish an invalid record and kill the service while it gives it up; return the seconds until it is ready."""
        armed = self.arm(case, identifier)
        errors: list[object] = []
        producer = Producer({"bootstrap.servers": self.stack.state["kafka"]})
        producer.produce(topic, b"no event", identifier, on_delivery=lambda error, _: errors.append(error))
        assert producer.flush(30) == 0
        assert errors == [None]
        killed = self._claimed_at(armed, CLAIM_SECONDS)
        time.sleep(0.2)
        return self.wait_ready(case.program) - killed

    def arm(self, case: Case, identifier: str, run_id: str = "") -> Path:
        """Arm the kill at this point of this run; return the path to which the killed process moves the file."""
        own = {
            "identifier": identifier,
            "partition": str(partition_of(identifier)),
            "key": hashlib.sha256(identifier.encode()).hexdigest(),
            "lease": run_id[-2:],
        }
        detail = re.sub(r"\{(\w+)\}", lambda found: own[found[1]], case.detail)
        name = f"{case.process}@{case.point}@{identifier}.json"
        part = self.folder / f"{name}.part"
        part.write_text(json.dumps({"detail": detail, "skip": case.hit - 1}))
        (self.folder / ARMED).mkdir(exist_ok=True)
        part.rename(self.folder / ARMED / name)
        return self.folder / CLAIMED / name

    def disarm(self, identifier: str) -> None:
        """Remove the kills that are still armed for a run."""
        for path in (self.folder / ARMED).glob(f"*@{identifier}.json"):
            path.unlink(missing_ok=True)

    def upload(self, identifier: str) -> str:
        """Upload with an idempotency key, and repeat the request until the gateway answers it."""

        def send() -> str | None:
            files = {
                "train": ("train.csv", self.train.read_bytes(), "text/csv"),
                "test": ("test.csv", self.test.read_bytes(), "text/csv"),
            }
            data = {"settings": json.dumps(dict(self.settings))}
            with self.stack.gateway as client:
                answer = client.post(
                    f"/datasets/{identifier}", files=files, data=data, headers={"Idempotency-Key": identifier}
                )
            if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
                return None
            assert answer.status_code == httpx.codes.ACCEPTED, answer.text
            return str(answer.json()["pipeline_run_id"])

        return wait_for(send, f"{identifier} is uploaded", RESTART_SECONDS)

    def follow(self, identifier: str, run_id: str) -> float:
        """Wait until a run is decided, forecast and served, and answers a request; return the time of serving."""
        for name in ("outcome", "forecast"):
            record = self._record(identifier, run_id, name)
            wait_for(record.exists, f"{identifier} has its {name}", RUN_SECONDS)
        decision = json.loads(self._record(identifier, run_id, "decision").read_text())
        trainer = trainer_of_model(decision["model_type"] or "")
        if decision["decision"] == "promoted" and trainer and decision["model_type"] not in NEVER_REFITTED:
            refit = self._record(identifier, run_id, "refit")
            wait_for(refit.exists, f"{identifier} is refitted", RUN_SECONDS)
            assert json.loads(refit.read_text())["decision"] == "promoted", refit.read_text()
            wait_for(lambda: self._points_at_refit(identifier), f"{identifier} has its refit as champion", RUN_SECONDS)
        model = decision["run_id"]
        wait_for(lambda: self._serves(identifier, model), f"{identifier} is served by {model}", RESTART_SECONDS)
        served = time.time()
        wait_for(lambda: self._forecasts(identifier), f"{identifier} answers a request", RESTART_SECONDS)
        return served

    def wait_ready(self, program: str) -> float:
        """Wait until a program is ready; return the time."""
        url = f"{self.stack.state['health'][program]}/readyz"
        wait_for(
            lambda: httpx.get(url, timeout=5, verify=False).is_success, f"{program} is ready again", RESTART_SECONDS
        )
        return time.time()

    def _arm_next_child(self, case: Case, identifier: str) -> Path:
        self.arm(Case(case.program, f"{case.program}.child", "work.before", "*/{identifier}"), identifier)
        return self.arm(case, identifier)

    def _claimed_at(self, claim: Path, seconds: float) -> float:
        try:
            wait_for(claim.exists, f"somebody died at {claim.name}", seconds)
        except AssertionError as error:
            raise NotPassedError(str(error)) from None
        # The service renamed the file just before it killed itself, so this is the time of the kill.
        return claim.stat().st_ctime

    def _record(self, identifier: str, run_id: str, name: str) -> Path:
        return self.stack.store / "pipeline-runs" / identifier / run_id / f"{name}.json"

    def _written_at(self, identifier: str, run_id: str, name: str) -> float:
        return self._record(identifier, run_id, name).stat().st_mtime

    def _serves(self, identifier: str, model: str) -> bool:
        with self.stack.inference as client:
            champions = client.get("/models").raise_for_status().json()["models"]
        return any((one["identifier"], one.get("run_id")) == (identifier, model) for one in champions)

    def _forecasts(self, identifier: str) -> bool:
        with self.stack.gateway as client:
            body = client.get(f"/datasets/{identifier}/tail").raise_for_status().json()
        answer = self.stack.predict(body | {"identifier": identifier, "inference_length": PREDICTED_STEPS})
        return len(answer.raise_for_status().json()["predictions"]) == PREDICTED_STEPS

    def _points_at_refit(self, identifier: str) -> bool:
        pointer = self.stack.store / "model-promotion" / identifier / "current.json"
        return bool(json.loads(pointer.read_text()).get("stage") == REFITTED)

    def _shipped(self, identifier: str) -> bool:
        return any(files_below(self.stack.store / "inference-logs" / identifier, ".jsonl"))

    def _passed(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for journal in (self.folder / PASSED).glob("*.jsonl"):
            process = journal.stem.rpartition("-")[0]
            for line in journal.read_text().splitlines():
                yield process, json.loads(line)


class Matrix:
    """Runs cases in parallel, one at a time in each service; parallel cases use different partitions."""

    def __init__(self, killing: Killing) -> None:
        self._killing = killing
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._waiting: list[Case] = []
        self._count = 0

    def run(self, cases: list[Case]) -> list[dict[str, Any]]:
        self._waiting = list(cases)
        with ThreadPoolExecutor(SIDE_BY_SIDE) as workers:
            rows = [row for of_worker in workers.map(self._work, range(SIDE_BY_SIDE)) for row in of_worker]
        return sorted(rows, key=lambda row: (SERVICES.index(row["service"]), row["process"], row["number"]))

    def _work(self, worker: int) -> list[dict[str, Any]]:
        rows = []
        while (taken := self._take(worker)) is not None:
            case, identifier = taken
            try:
                rows.append(self._row(worker, case, identifier))
            finally:
                with self._lock:
                    self._busy.discard(case.program)
            sys.stdout.write(f"{rows[-1]}\n")
            sys.stdout.flush()
        return rows

    def _take(self, worker: int) -> tuple[Case, str] | None:
        while True:
            with self._lock:
                if not self._waiting:
                    return None
                left = {program: sum(case.program == program for case in self._waiting) for program in SERVICES}
                free = [case for case in self._waiting if case.program not in self._busy | excluded(self._busy)]
                if free:
                    # The service with the most remaining cases comes first, so that all workers end together.
                    case = max(free, key=lambda one: left[one.program])
                    self._waiting.remove(case)
                    self._busy.add(case.program)
                    return case, self._identifier(worker, case)
            time.sleep(0.2)

    def _identifier(self, worker: int, case: Case) -> str:
        while True:
            self._count += 1
            identifier = f"{case.program}-{self._count}"
            if partition_of(identifier) % SIDE_BY_SIDE == worker:
                return identifier

    def _row(self, worker: int, case: Case, identifier: str) -> dict[str, Any]:
        number = int(identifier.rpartition("-")[2])
        row = {"service": case.program, "process": case.process, "point": case.point, "detail": case.detail}
        row |= {"time": case.hit, "number": number}
        began = time.monotonic()
        try:
            killed = self._passed_and_killed(worker, case, identifier)
        except Exception as error:  # noqa: BLE001 - the other cases must run after a failed case
            return row | {"result": f"{type(error).__name__}: {error}", "recovery_seconds": None, "failed": True}
        took = time.monotonic() - began
        return row | {
            "result": killed.outcome,
            "recovery_seconds": killed.recovery_seconds,
            "case_seconds": took,
            "failed": False,
        }

    def _passed_and_killed(self, worker: int, case: Case, identifier: str) -> Killed:
        for tries in range(1, TRIES + 1):
            try:
                killed = self._killing.kill(case, identifier)
                audit(self._killing.stack, identifier, killed.run_id)
            except NotPassedError:
                if tries == TRIES:
                    raise
            else:
                return killed
            finally:
                self._killing.disarm(identifier)
            with self._lock:
                identifier = self._identifier(worker, case)
        raise AssertionError  # not reached: the last attempt returns or raises


def excluded(busy: Collection[str]) -> set[str]:
    """Return the services that may not be killed while these are."""
    return {*(NEED_EARLY if EARLY in busy else ()), *((EARLY,) if set(NEED_EARLY) & set(busy) else ())}


def partition_of(identifier: str) -> int:
    """Return the partition of an identifier's messages; librdkafka's default partitioner uses the same CRC-32."""
    return zlib.crc32(identifier.encode()) % PARTITIONS


def wait_for(check: Callable[[], T | None], what: str, timeout: float) -> T:
    """Wait as `eventually` does; a service that is unavailable meanwhile is no failure."""

    def patient() -> T | None:
        try:
            return check()
        except (httpx.HTTPError, ValueError):
            return None

    return eventually(patient, what, timeout=timeout, every=0.1)


def cases_of(observed: Mapping[Case, int]) -> list[Case]:
    """Return the kills that cover every point: its first passage and, if a repeat has an effect, its last passage.

    Reads have no effect, so one object per bucket represents every object that a process reads in the bucket.
    """
    chosen = []
    seen_reads = set()
    for case, times in observed.items():
        if case.point.startswith("object-read"):
            bucket = (case.process, case.point, case.detail.partition("/")[0])
            if bucket in seen_reads:
                continue
            seen_reads.add(bucket)
        chosen.append(case)
        again = f"{case.point} {case.detail}"
        if times > 1 and not case.on_its_own and not any(word in again for word in EVER_AGAIN):
            chosen.append(Case(case.program, case.process, case.point, case.detail, times))
    return sorted(chosen)


def _as_case(process: str, line: Mapping[str, Any], identifier: str) -> Case | None:
    """Return the case of a passed point; None if the point is neither of this run nor in `ON_THEIR_OWN`."""
    program, point, detail = process.removesuffix(".child"), line["point"], line["detail"]
    if point.startswith("commit."):
        topic, _, partition = detail.rpartition("/")
        return Case(program, process, point, f"{topic}/{{partition}}") if _is(partition, identifier) else None
    if "_leases/forecast-" in detail:
        return Case(program, process, point, "pipeline-runs/_leases/forecast-{lease}.json")
    key = hashlib.sha256(identifier.encode()).hexdigest()
    if key in detail:
        return Case(program, process, point, detail.replace(key, "{key}"))
    if identifier in detail:
        return Case(program, process, point, _VARIABLE.sub("*", detail.replace(identifier, "{identifier}")))
    return Case(program, process, point, detail) if f"{point} {detail}".startswith(ON_THEIR_OWN) else None


def _is(partition: str, identifier: str) -> bool:
    return partition == str(partition_of(identifier))
