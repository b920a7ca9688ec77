"""Write the archive of a release, which the tests of later releases read: ``python -m tests.release_store COMMIT``.

The module starts the embedded pipeline and makes the states in which a release can be replaced: champions of each model
type, runs with each outcome, unfinished runs in each stage, dead letters, and records that MLflow does not have yet.
The result is ``tests/releases/<COMMIT>.tar.xz`` (`tests.released` describes it). Ids and times differ between two
executions, so an archive is written once, when the commit is released, and only read after that.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from confluent_kafka import Producer

from flts.contracts.ids import canonical_json
from flts.contracts.topics import RAW_DATA, dead_letter_topic
from flts.forecasting.series import FloatArray
from tests.eventually import eventually
from tests.files_below import files_below
from tests.killing import Case, Killing
from tests.released import ENDING, EXPECTED, FOLDER, MOST_BYTES, QUEUE, pack, write_queue
from tests.stack import ROOT, RunningStack, running_stack
from tests.swinging import write_swinging
from tests.whole_log import GROUPS, PIPELINE, Logged, read_log

PRODUCT = ("flts", "embedded", "*_container")
ENVIRONMENT = {
    "EPOCHS": "40",
    "HIDDEN_SIZE": "6",
    "NUM_LAYERS": "1",
    "BATCH_SIZE": "32",
    "LEARNING_RATE": "0.02",
    "SEED": "2",
}
"""Settings that a later release also needs, because config_hash and train_hash depend on them."""
WEAK = {"EPOCHS": 1, "HIDDEN_SIZE": 1}
"""Settings of a run whose model is worse than the model of the next run."""
OWN_ENVIRONMENT = {"STOP_SECONDS": "3", "RETRY_BACKOFF_SECONDS": "60"}
"""Seconds: frozen services are killed soon at the end; no failed attempt is repeated before its service is frozen."""
TRAINERS = ("train-gru", "train-lstm", "nonml-prophet")
EVAL_DIES = "object-write.before", "pipeline-runs/{identifier}/*/decision.json"
"""Kill point of eval's child: every model is scored, and `decision.json` is not written."""

SWINGING, SEASONAL, CONSTANT = "swinging", "seasonal", "constant"
SWAPPED = "swapped"
"""Identifier with a second champion, so that a rollback can return to the first champion."""
LSTM_SEED = 42
"""Seed with which LSTM is the best model of the swinging data set; GRU is the best with the seed of `ENVIRONMENT`."""
QUICK = {"EPOCHS": 2}
"""Settings of the unfinished runs, which a later release ends."""


def main() -> int:
    """Write the archive of a commit; fail if the product code of this checkout differs from the commit."""
    commit = sys.argv[1]
    subprocess.run(["git", "diff", "--exit-code", "--stat", commit, "--", *PRODUCT], cwd=ROOT, check=True)
    archive = FOLDER / f"{commit}{ENDING}"
    with tempfile.TemporaryDirectory() as name:
        written = write_release(Path(name))
        FOLDER.mkdir(exist_ok=True)
        pack(written, archive)
    size = archive.stat().st_size
    sys.stdout.write(f"{archive.relative_to(ROOT)}: {size:,} bytes of at most {MOST_BYTES:,}\n")
    return int(size > MOST_BYTES)


def write_release(scratch: Path) -> Path:
    """Make the states of a release; return a folder with the content of its archive."""
    home, points, files = scratch / "home", scratch / "points", Files(scratch / "files")
    points.mkdir()
    with running_stack(home, **ENVIRONMENT, **OWN_ENVIRONMENT, KILL_POINTS=str(points)) as stack:
        history = History(stack, files)
        history.decide()
        expected = {
            "environment": ENVIRONMENT,
            "champions": [history.answer(name) for name in (SWAPPED, SWINGING, SEASONAL, CONSTANT)],
            "earlier": history.earlier,
        }
        history.leave_unfinished(points)
        expected["outcomes"] = stack.outcomes()
        records = read_log(stack.state["kafka"], [*PIPELINE, *map(dead_letter_topic, GROUPS)])
        history.record_without_broker()
    expected["unfinished"] = history.unfinished
    return _collect(home, scratch / "release", expected, records)


class Files:
    """Small data sets.

    Parameters
    ----------
    folder : Path
        Folder for the CSV files.
    """

    def __init__(self, folder: Path) -> None:
        self.swinging = write_swinging(folder / SWINGING, train_rows=400, test_rows=100)
        self.seasonal = _csv(folder / SEASONAL, _seasonal(500))
        self.constant = _csv(folder / CONSTANT, np.full((500, 2), (3.0, 7.0)))
        self.walk = _csv(folder / "walk", 100 + np.random.default_rng(0).normal(size=(500, 1)).cumsum(axis=0))


@dataclass
class History:
    """Brings a running pipeline into the states of an archive.

    Parameters
    ----------
    stack : RunningStack
    files : Files
    """

    stack: RunningStack
    files: Files
    earlier: dict[str, Any] = field(default_factory=dict)
    """pipeline_run_id, forecast request and answer of the first champion of `SWAPPED`."""
    unfinished: list[dict[str, str]] = field(default_factory=list)
    """Runs without an outcome: the last finished step, and the outcome that is expected of a later release."""

    def decide(self) -> None:
        """Make champions, ended runs and dead letters."""
        first = {
            "promoted": [
                self._upload(SWAPPED, self.files.swinging, WEAK),
                self._upload(SWINGING, self.files.swinging, {"SEED": LSTM_SEED}),
                self._upload(SEASONAL, self.files.seasonal),
                self._upload(CONSTANT, self.files.constant),
            ],
            "refused": [self._upload("walk", self.files.walk)],
        }
        for outcome, runs in first.items():
            for run in runs:
                self._ends(run, outcome)
        self.earlier = {"pipeline_run_id": first["promoted"][0], **self.answer(SWAPPED)}
        self._ends(self._upload(SWAPPED, self.files.swinging), "promoted")
        self._overtake(SEASONAL, first["promoted"][2])
        self._ends(self._job(SEASONAL), "kept")
        self._lose_the_rows("broken")
        self._give_up_a_record("poison")

    def leave_unfinished(self, points: Path) -> None:
        """Make unfinished runs in each stage, with a broker and without MLflow."""
        stack = self.stack
        stack.freeze("mlflow")
        self._ends(self._post(f"/datasets/{SWINGING}/rollback", of_run=self._run_of(SWINGING)), "promoted")
        self._freeze(*TRAINERS)
        cancelled = self._retrain_once(SWAPPED)
        self._post(f"/runs/{cancelled}/cancel", reason="the wrong file")
        self._upload("deleted", self.files.swinging)
        with stack.gateway as client:
            client.delete("/datasets/deleted", params={"cancel": True, "reason": "a trial"}).raise_for_status()
        trained = self._leave("trained", "promoted")
        self._wait_for(trained, "expected")
        self._die_while_judging(points, SWINGING)
        self._thaw(*TRAINERS)
        self._wait_for(trained, *(f"stages/{trainer}" for trainer in TRAINERS))
        self._freeze("train-lstm", "nonml-prophet")
        self._wait_for(self._leave("partly-trained", "promoted"), "stages/train-gru")
        self._freeze("train-gru")
        self._wait_for(self._leave("preprocessed", "promoted"), "stages/preprocess", "inference")
        self._freeze("preprocess")
        self._wait_for(self._leave("announced", "promoted"), "announced")

    def record_without_broker(self) -> None:
        """Make a recorded run whose event the broker has not received; the broker stays frozen afterwards."""
        self._freeze("kafka")
        self._leave("recorded", "promoted")

    def answer(self, identifier: str) -> dict[str, Any]:
        """Return a forecast request and its answer."""
        with self.stack.gateway as client:
            tail = client.get(f"/datasets/{identifier}/tail", params={"rows": 20}).raise_for_status().json()
        request = {**tail, "inference_length": 6}
        return {"request": request, "answer": self.stack.forecast(request)}

    def _overtake(self, identifier: str, champions_run: str) -> None:
        """Make a superseded run: eval decides it after the promotion of a newer run."""
        (child,) = psutil.Process(self.stack.pid("train-lstm")).children()
        child.suspend()
        older = self._upload(identifier, self.files.seasonal, WEAK)
        self._wait_for((identifier, older), "trained/GRU", "trained/PROPHET")
        self._ends(self._post(f"/datasets/{identifier}/rollback", of_run=champions_run), "promoted")
        child.resume()
        self._ends(older, "superseded")

    def _retrain_once(self, identifier: str) -> str:
        """Start a run with an Idempotency-Key."""
        answer = self.stack.post("/runs", json={"identifier": identifier}, headers={"Idempotency-Key": "once"})
        return str(answer["pipeline_run_id"])

    def _job(self, identifier: str) -> str:
        """Run preprocess's Job, which trains nothing again; return its run."""
        service = psutil.Process(self.stack.pid("preprocess")).environ()
        command = [sys.executable, "-m", "preprocess_container.job"]
        subprocess.run(command, cwd=ROOT, env={**service, "DATASET_NAME": identifier}, check=True, capture_output=True)
        return self.stack.run_store.runs.of(identifier)[0]

    def _lose_the_rows(self, identifier: str) -> None:
        """Make every trainer fail: delete the rows of the training-data event before the trainers read it."""
        self._freeze(*TRAINERS)
        run = self._upload(identifier, self.files.swinging)
        self._wait_for((identifier, run), "stages/preprocess")
        next((self.stack.store / "processed-data" / identifier).glob("*/processed_data.parquet")).unlink()
        self._thaw(*TRAINERS)
        self._ends(run, "refused")

    def _give_up_a_record(self, key: str) -> None:
        """Make preprocess dead-letter a record, and replay the dead letter."""
        producer = Producer({"bootstrap.servers": self.stack.state["kafka"]})
        producer.produce(RAW_DATA.name, b"no event \xff", key)
        assert producer.flush(30) == 0
        letters = "/dead-letters/preprocess"
        with self.stack.gateway as client:
            eventually(lambda: client.get(letters).json()["total"] == 1, "the record is given up")
            client.post(f"{letters}/replay", json={"all": True, "reason": "mended"}).raise_for_status()
            eventually(lambda: client.get(letters).json()["total"] == 2, "its replay is given up too")

    def _die_while_judging(self, points: Path, identifier: str) -> None:
        """Start an evaluation run, and kill eval's child before it writes the decision."""
        kill = Killing(self.stack, points, *self.files.swinging)
        died = kill.arm(Case("eval", "eval.child", *EVAL_DIES), identifier)
        run = self._post(f"/runs/{self._run_of(identifier)}/evaluate")
        self.unfinished.append({"left": "judged", "identifier": identifier, "pipeline_run_id": run, "outcome": "kept"})
        eventually(died.exists, "eval dies", timeout=60)
        attempts = self.stack.store / "pipeline-runs" / identifier / run / "attempts"
        failed = lambda: any(json.loads(path.read_bytes())["error"] for path in files_below(attempts))  # noqa: E731
        eventually(failed, "the attempt has failed", timeout=30)
        self._freeze("eval")

    def _run_of(self, identifier: str) -> str:
        """Return the oldest run of an identifier, which is an upload."""
        return self.stack.run_store.runs.of(identifier)[-1]

    def _leave(self, identifier: str, outcome: str) -> tuple[str, str]:
        """Start a run that stays unfinished in the state that its identifier names; return (identifier, run)."""
        run = self._upload(identifier, self.files.swinging, QUICK)
        self.unfinished.append(
            {"left": identifier, "identifier": identifier, "pipeline_run_id": run, "outcome": outcome}
        )
        return identifier, run

    def _upload(self, identifier: str, files: tuple[Path, ...], settings: Mapping[str, object] | None = None) -> str:
        return self.stack.upload(identifier, *files, settings=settings)

    def _post(self, path: str, **parameters: str) -> str:
        return str(self.stack.post(path, params=parameters)["pipeline_run_id"])

    def _ends(self, run: str, outcome: str) -> None:
        ended = self.stack.wait_decided(run)
        assert ended["outcome"] == outcome, (ended["identifier"], ended["outcome_details"])
        if ended["cause"] in {"upload", "job"}:
            self._wait_for((ended["identifier"], run), "forecast")

    def _wait_for(self, run: tuple[str, str], *records: str) -> None:
        """Wait until a run has these records, and the status of each record with a status is final."""
        folder = self.stack.store.joinpath("pipeline-runs", *run)

        def there(record: str) -> bool:
            path = folder / f"{record}.json"
            return path.exists() and json.loads(path.read_bytes()).get("status", "done") in {
                "done",
                "skipped",
                "SUCCESS",
            }

        eventually(lambda: all(map(there, records)), f"{run} has {records}", timeout=120, every=0.1)

    def _freeze(self, *programs: str) -> None:
        for program in programs:
            self.stack.freeze(program)

    def _thaw(self, *programs: str) -> None:
        for program in programs:
            self.stack.thaw(program)


def _collect(home: Path, folder: Path, expected: Mapping[str, Any], records: list[Logged]) -> Path:
    shutil.copytree(home / "store", folder / "store", ignore=shutil.ignore_patterns(".flts"))
    shutil.copytree(home / "inference", folder / "inference")
    for path in files_below(folder):
        data = path.read_bytes()
        if (changed := _of_no_machine(data)) != data:
            assert "attempts" in path.parts, f"{path} names this machine, and its hash may be promised"
            modified = path.stat().st_mtime
            path.write_bytes(changed)
            os.utime(path, (modified, modified))
    (folder / EXPECTED).write_bytes(canonical_json(expected))
    write_queue(folder / QUEUE, map(_record_of_no_machine, records))
    return folder


def _record_of_no_machine(record: Logged) -> Logged:
    headers = tuple((name, value and _of_no_machine(value)) for name, value in record.headers)
    return replace(record, value=record.value and _of_no_machine(record.value), headers=headers)


def _of_no_machine(data: bytes) -> bytes:
    """Remove this machine's paths and host name, which tracebacks and attempts contain."""
    names = {f"{ROOT}/": "", sys.base_prefix: "python", f'"host": "{socket.gethostname()}"': '"host": "host"'}
    for name, instead in names.items():
        data = data.replace(name.encode(), instead.encode())
    assert str(Path.home()).encode() not in data
    return data


def _seasonal(rows: int) -> FloatArray:
    """Return a daily season of half-hourly values with noise, on which Prophet is the best model; (rows, 1)."""
    phase = 2 * np.pi * (np.arange(rows) % 48) / 48
    return (100 + 40 * np.sin(phase) + np.random.default_rng(7).normal(0, 4, rows))[:, None]


def _csv(path: Path, values: FloatArray) -> tuple[Path]:
    """Write half-hourly values of shape (rows, columns) as a CSV."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    columns = [f"c{number}" for number in range(values.shape[1])]
    lines = [",".join(["time", *columns])]
    for number, row in enumerate(values):
        moment = start + timedelta(minutes=30 * number)
        lines.append(",".join([f"{moment:%Y-%m-%dT%H:%M:%SZ}", *(f"{value:.3f}" for value in row)]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return (path,)


if __name__ == "__main__":
    raise SystemExit(main())
