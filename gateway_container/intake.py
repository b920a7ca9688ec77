"""Start a run from files on disk: check them, store them, record the run. The outbox then announces the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from flts.contracts.champion_stage import selected_event_id
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import EvaluateRequest, ModelSelected, RawData, RollbackRequest
from flts.contracts.ids import canonical_json, new_pipeline_run_id, sha256_of
from flts.contracts.lifecycle import CANCELLED_REASON, RunState, is_cancellation
from flts.errors import (
    ConflictError,
    HashMismatchError,
    NotFoundError,
    ObjectNotFoundError,
    PreconditionFailedError,
    RejectedError,
)
from flts.ingest.uploads import newest_upload, upload_hash
from flts.recipe_settings import DATA_SETTINGS, RecipeSettings
from flts.settings import RefitSettings, check_overrides
from flts.storage import layout
from flts.storage.ports import ObjectInfo, ObjectStore
from flts.storage.records import Record
from flts.storage.run_store import RunStore
from flts.trainers import TRAINERS
from gateway_container.checking import ChecksFiles
from gateway_container.domain.keys import IncomingKey
from gateway_container.domain.same_data import description, refuse_other_data
from gateway_container.domain.uploads import StartRequest, evaluate_request, raw_data_event, rollback_request
from gateway_container.receive import ReceivedFile, hash_file
from gateway_container.settings import GatewaySettings

LONGEST_IDEMPOTENCY_KEY = 200
UPLOAD_STAGE = "upload"
UPLOADS_SEARCHED = 20
"""Runs, from the newest, among which the last upload is searched."""
CANCEL_REASON = "a person cancelled it"


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run that is recorded."""

    event: RawData
    report: dict[str, Any] | None
    repeated: bool
    """Whether an earlier request with the same Idempotency-Key started the run."""


@dataclass(frozen=True, slots=True)
class Checked:
    """Uploaded files that passed the check."""

    train: ReceivedFile
    test: ReceivedFile | None
    rows: tuple[int, int | None]
    columns: int
    report: dict[str, Any]


class Intake:
    """Starts and cancels runs. Every method blocks, so routes call it in a thread.

    Parameters
    ----------
    store : ObjectStore
        Stores the uploads.
    run_store : RunStore
        Records the runs.
    settings : GatewaySettings
        Limits, buckets, and the defaults that a run's overrides replace.
    checks : ChecksFiles
        Reads the files.
    """

    def __init__(
        self,
        store: ObjectStore,
        run_store: RunStore,
        settings: GatewaySettings,
        checks: ChecksFiles,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_run_id: Callable[[], str] = new_pipeline_run_id,
    ) -> None:
        self._store = store
        self._evaluations = run_store.evaluations
        self._pointers = run_store.pointers
        self._runs = run_store.runs
        self._stages = run_store.stages
        self._settings = settings
        self._checks = checks
        self._now = now
        self._new_run_id = new_run_id

    def check(self, train: ReceivedFile, test: ReceivedFile | None, request: StartRequest) -> Checked:
        """Read both files and report their content; nothing is stored.

        Raises
        ------
        RejectedError
            If training is impossible; the message names the column, setting or file, and the number of rows needed.
        """
        check_overrides(request.effective, RecipeSettings, RefitSettings, *(trainer.settings for trainer in TRAINERS))
        settings = self._settings.with_overrides(request.effective)
        found = self._checks.check(train.path, test.path if test else None, settings)
        train_rows, test_rows = found["rows"]
        return Checked(train, test, (train_rows, test_rows), found["columns"], found["report"])

    def start(self, checked: Checked, request: StartRequest, *, began: datetime) -> StartedRun:
        """Store checked files under the hash of their content and record a run on them.

        Raises
        ------
        ConflictError
            If the upload does not continue the data set and ``replace`` is not given (``other_data``), the
            Idempotency-Key was used for another request, or the identifier is or was deleted meanwhile.
        RejectedError
            If the Idempotency-Key is empty, too long or not printable.
        """
        digest = upload_hash(checked.train.sha256, checked.test.sha256 if checked.test else None)
        described = description(checked.report, sum(rows for rows in checked.rows if rows))
        if request.cause == "upload" and not request.replace:
            before = self._described(request.identifier)
            if before is not None:
                refuse_other_data(request.identifier, before, described)
        run_id, repeated = self._claim_run_id(request, digest)
        # Raises for a deleted identifier before any file is stored.
        self._runs.refuse_deleted(request.identifier, run_id)
        test_claim = None
        if checked.test is not None:
            test_claim = self._put(
                request.identifier, digest, "test", checked.test, rows=checked.rows[1], columns=checked.columns
            )
        # An upload counts as complete once its training file is stored, so the training file is stored after the test
        # file.
        train_claim = self._put(
            request.identifier, digest, "train", checked.train, rows=checked.rows[0], columns=checked.columns
        )
        event = raw_data_event(
            request, pipeline_run_id=run_id, train=train_claim, test=test_claim, created_at=self._now()
        )
        try:
            first = self._runs.create(event)
        except ConflictError:
            # The identifier was deleted during the upload. The deletion may have missed these files, because they were
            # stored at the same time, so they are deleted here.
            for claim in (train_claim, test_claim):
                if claim is not None:
                    self._store.delete(claim.bucket, claim.object_key)
            raise
        if not first:
            record = self._runs.read(request.identifier, run_id)
            event = RawData.model_validate(record)
        else:
            self._stages.put(
                request.identifier,
                run_id,
                UPLOAD_STAGE,
                "done",
                began,
                self._now(),
                size_bytes=train_claim.size + (test_claim.size if test_claim else 0),
                **described,
            )
        return StartedRun(event, checked.report, repeated)

    def _described(self, identifier: str) -> Record | None:
        """Return the record of the last upload of an identifier, or None if an earlier release wrote it."""
        for run_id in self._runs.of(identifier)[:UPLOADS_SEARCHED]:
            stage = self._stages.read(identifier, run_id, UPLOAD_STAGE)
            if stage is not None and "columns" in stage:
                return stage
        return None

    def evaluate_again(self, identifier: str, of_run: str, reason: str | None = None) -> EvaluateRequest:
        """Record a run that evaluates another run's candidates again; nothing is trained."""
        event = evaluate_request(
            identifier=identifier,
            of_run=of_run,
            pipeline_run_id=self._new_run_id(),
            created_at=self._now(),
            reason=reason,
        )
        self._runs.create(event)
        return event

    def roll_back(self, identifier: str, of_run: str | None, reason: str | None = None) -> RollbackRequest:
        """Record a run that makes an earlier champion the current one again.

        Raises
        ------
        NotFoundError
            If there is no earlier champion, or ``of_run`` is not a run of this identifier.
        """
        current = self._pointers.current(identifier)
        if of_run is None and (current is None or not current[0].get("previous")):
            msg = f"{identifier} has no champion before the current one; name the run whose champion is to return"
            raise NotFoundError(msg, code="no_predecessor", field="of_run")
        if of_run is not None and self._runs.identifier_of(of_run) != identifier:
            msg = f"{identifier} has no run {of_run[:60]}; `flts runs --identifier {identifier}` lists them"
            raise NotFoundError(msg, code="unknown_run", field="of_run")
        event = rollback_request(
            identifier=identifier,
            of_run=of_run,
            pipeline_run_id=self._new_run_id(),
            created_at=self._now(),
            reason=reason,
        )
        self._runs.create(event)
        return event

    def cancel(self, identifier: str, run_id: str, reason: str | None = None) -> bool:
        """End a run before eval decides it; return False if the run had ended already.

        The gateway first writes the decision, create-only, as a refusal. Eval adopts a decision that exists. So a run
        is either cancelled or decided by eval.

        Raises
        ------
        ConflictError
            With code ``already_decided`` if eval wrote its decision first.
        """
        why = f"{CANCEL_REASON}: {reason}" if reason else CANCEL_REASON
        decision = self._evaluations.decision(identifier, run_id)
        claimed = False
        if decision is None:
            if self._runs.end(identifier, run_id) is not None:
                return False
            refusal = ModelSelected(
                event_id=selected_event_id(run_id),
                identifier=identifier,
                pipeline_run_id=run_id,
                created_at=self._now(),
                decision="refused",
                reasons=[CANCELLED_REASON + why],
                cancelled=True,
            )
            document = {**refusal.model_dump(mode="json"), "pointer": None}
            decision, claimed = self._evaluations.decide(identifier, run_id, document)
        if not is_cancellation(decision):
            msg = f"the run {run_id} was decided already: {decision.get('decision')}"
            raise ConflictError(msg, code="already_decided", field="pipeline_run_id")
        if self._runs.put_outcome(identifier, run_id, RunState.CANCELLED, reason=why):
            return True
        # Another process wrote the outcome first. If this call wrote the decision to cancel and eval then wrote the
        # outcome CANCELLED, this call has cancelled the run.
        return claimed and self._runs.end(identifier, run_id) is RunState.CANCELLED

    def fetch_newest(self, identifier: str, folder: Path) -> tuple[ReceivedFile, ReceivedFile | None]:
        """Download an identifier's newest upload to a folder and check its hash.

        Raises
        ------
        NotFoundError
            If nothing was uploaded as ``identifier``.
        HashMismatchError
            If the stored files are not the uploaded ones.
        """
        bucket = self._settings.bucket_raw_data
        newest = newest_upload(self._store, bucket, identifier)
        if newest is None:
            msg = f"nothing was uploaded as {identifier}; upload a CSV first: flts upload {identifier} train.csv"
            raise NotFoundError(msg, code="no_upload", field="identifier")
        train = self._fetch(bucket, newest.train.key, folder / "train")
        test = self._fetch(bucket, newest.test.key, folder / "test") if newest.test is not None else None
        found = upload_hash(train.sha256, test.sha256 if test else None)
        if found != newest.upload_hash:
            msg = f"the stored files of {identifier}/{newest.upload_hash} are not the ones that were uploaded"
            raise HashMismatchError(msg)
        return train, test

    def data_settings(self, identifier: str, train: ReceivedFile, test: ReceivedFile | None) -> dict[str, Any]:
        """Return the settings of the newest upload of these files that say how they are read and what columns are.

        It is empty for files of which no upload started a run, such as those of the landing zone.
        """
        wanted = train.sha256, None if test is None else test.sha256
        for run_id in self._runs.of(identifier)[:UPLOADS_SEARCHED]:
            record = self._runs.read(identifier, run_id)
            if record is None or record.get("cause") != "upload":
                continue
            files = [record.get(part) or {} for part in ("train", "test")]
            if tuple(file.get("sha256") for file in files) == wanted:
                return {name: value for name, value in record["settings"].items() if name.lower() in DATA_SETTINGS}
        return {}

    def land(self, target: IncomingKey, file: ReceivedFile, folder: Path) -> str | None:
        """Store a file in the landing zone; once there is a training file, store the data set under its content's hash.

        The data set consists of the last train.csv and test.csv in the landing zone. No run is started.

        Returns
        -------
        str or None
            The upload's hash, or None while there is no training file.
        """
        bucket = self._settings.bucket_raw_data
        self._store.put_file(bucket, target.object_key, file.path)
        files = {target.part: file}
        other = "test" if target.part == "train" else "train"
        try:
            files[other] = self._fetch(bucket, layout.INCOMING(target.identifier, other), folder / other)
        except ObjectNotFoundError:
            if other == "train":
                return None
        train, test = files["train"], files.get("test")
        digest = upload_hash(train.sha256, test.sha256 if test else None)
        # The copies on disk are stored, because they are the files that were hashed. The files in the landing zone,
        # where clients put uploads, may have changed since.
        if test is not None:
            self._put(target.identifier, digest, "test", test)
        self._put(target.identifier, digest, "train", train)
        return digest

    def head(self, bucket: str, key: str) -> ObjectInfo:
        """Return an object's info."""
        return self._store.head(bucket, key)

    def stream(self, bucket: str, key: str) -> Iterator[bytes]:
        """Return an object's chunks. The first chunk is read at once, so that a missing object raises here."""
        chunks = iter(self._store.stream(bucket, key))
        first = next(chunks, b"")
        return chain([first], chunks)

    def forget_idempotency_keys(self) -> int:
        """Remove Idempotency-Keys older than ``idempotency_keep_days``; return their number."""
        bucket = self._settings.bucket_pipeline_runs
        oldest = self._now().timestamp() - self._settings.idempotency_keep_days * 86_400
        old = [info.key for info in self._store.list(bucket, layout.IDEMPOTENCY.prefix()) if info.modified < oldest]
        for key in old:
            self._store.delete(bucket, key)
        return len(old)

    def _fetch(self, bucket: str, key: str, path: Path) -> ReceivedFile:
        self._store.get_file(bucket, key, path)
        return hash_file(path)

    def _put(
        self,
        identifier: str,
        digest: str,
        part: str,
        file: ReceivedFile,
        *,
        rows: int | None = None,
        columns: int | None = None,
    ) -> ClaimCheck:
        bucket = self._settings.bucket_raw_data
        key = layout.UPLOAD(identifier, digest, part)
        # The key contains the hash of the content, so an object under this key has the same bytes and may be
        # overwritten. Overwriting sets a new time of modification, so a repeated upload becomes the newest upload.
        self._store.put_file(bucket, key, file.path)
        return ClaimCheck(bucket=bucket, object_key=key, size=file.size, sha256=file.sha256, rows=rows, columns=columns)

    def _claim_run_id(self, request: StartRequest, digest: str) -> tuple[str, bool]:
        key = request.idempotency_key
        if key is None:
            return self._new_run_id(), False
        if not 1 <= len(key) <= LONGEST_IDEMPOTENCY_KEY or not key.isprintable():
            msg = f"an Idempotency-Key has 1 to {LONGEST_IDEMPOTENCY_KEY} printable characters"
            raise RejectedError(msg, code="bad_idempotency_key", field="Idempotency-Key")
        asked = sha256_of(
            {
                "identifier": request.identifier,
                # A retrain uses the upload that is the newest when the request arrives. If a client repeats the request
                # after another upload, the gateway must recognise it as the same request, so the hash of a retrain
                # leaves the upload out.
                "upload": digest if request.cause == "upload" else None,
                "settings": dict(request.settings),
                "force": request.force,
                "cause": request.cause,
            }
        )
        record = {"pipeline_run_id": self._new_run_id(), "asked": asked}
        bucket = self._settings.bucket_pipeline_runs
        object_key = layout.IDEMPOTENCY(hashlib.sha256(key.encode()).hexdigest())
        try:
            self._store.put(bucket, object_key, canonical_json(record), create_only=True)
        except PreconditionFailedError:
            stored = json.loads(self._store.get(bucket, object_key)[0])
            if stored["asked"] != asked:
                msg = "this Idempotency-Key was used for another request; choose a new one"
                raise ConflictError(msg, code="idempotency_key_reused", field="Idempotency-Key") from None
            return str(stored["pipeline_run_id"]), True
        return str(record["pipeline_run_id"]), False
