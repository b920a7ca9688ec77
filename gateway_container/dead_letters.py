"""Dead letters over HTTP: count, list, show, replay. The methods block, so routes call them in a thread."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flts.contracts.events import Event, ModelRefit, RefitRequest
from flts.dead_letters.accounting import Account, Accounting
from flts.dead_letters.letters import DeadLetters, Head
from flts.dead_letters.replay import Replayer, ReplayMarks, Report, answered_records
from flts.errors import ConflictError, FltsError, NotFoundError
from flts.messaging.codec import header
from flts.observability.logs import get_logger
from flts.observability.metrics import Metrics
from flts.storage.evaluations import Evaluations
from flts.storage.forecasts import Forecasts
from flts.storage.operations import Operations
from flts.storage.run_store import RunStore
from flts.trainers import DEPLOYMENTS
from gateway_container.settings import GatewaySettings

log = get_logger(__name__)

CAUSE = "replay"
FORECASTS = "inference-worker"
NOTED_RUNS = 50
"""Most runs that one replay is recorded for; each record is one write to the store."""
SHOWN_BYTES = 4096
"""Bytes shown of one header; the record's value is shown completely."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The criteria that choose letters; None accepts every value."""

    error_code: str | None = None
    identifier: str | None = None
    topic: str | None = None
    waiting: bool = False
    """Only letters whose record was not replayed."""


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """A request to replay letters, with its client and reason."""

    ids: tuple[str, ...] | None
    """None: the letters of ``choice``, oldest first."""
    choice: Choice
    limit: int
    rate: float | None
    again: bool
    force: bool
    reason: str | None
    by: str | None


class DeadLetterDesk:
    """Counts, lists, shows and replays dead letters.

    Parameters
    ----------
    letters : DeadLetters
    accounting : Accounting
    marks : ReplayMarks
    replayer : Replayer
    operations : Operations
        Records the client and the reason of each replay.
    settings : GatewaySettings
    metrics : Metrics
    """

    def __init__(
        self,
        *,
        letters: DeadLetters,
        accounting: Accounting,
        marks: ReplayMarks,
        replayer: Replayer,
        operations: Operations,
        settings: GatewaySettings,
        metrics: Metrics,
    ) -> None:
        self._letters = letters
        self._accounting = accounting
        self._marks = marks
        self._replayer = replayer
        self._operations = operations
        self._settings = settings
        self._metrics = metrics

    def groups(self) -> list[dict[str, Any]]:
        """Return each group: its letters by reason, and its account of every topic that it consumes."""
        accounts = self._accounting.accounts(self._marks.replayed)
        found = []
        for group in self._letters.groups():
            heads = self._letters.heads(group)
            answered = answered_records(heads, self._marks.replayed(group))
            waiting = {head.source: head for head in heads if head.source not in answered}
            found.append(
                {
                    "group": group,
                    "letters": len(heads),
                    "waiting": len(waiting),
                    "newest": _iso(heads[-1]) if heads else None,
                    "error_codes": dict(Counter(head.error_code for head in waiting.values()).most_common()),
                    "accounts": [each.as_dict() for each in accounts if each.group == group],
                }
            )
        return found

    def page(self, group: str, choice: Choice, *, limit: int, after: str | None = None) -> dict[str, Any]:
        """Return letters, newest first.

        Parameters
        ----------
        after : str, optional
            The id of the last letter of the previous page.

        Raises
        ------
        NotFoundError
            If there is no such group, or the group has no letter ``after``.
        """
        chosen, answered = self._choose(group, choice)
        chosen.reverse()
        if after is not None:
            at = next((number for number, head in enumerate(chosen) if head.id == after), None)
            if at is None:
                msg = f"{group} has no dead letter {after[:60]} to go on from"
                raise NotFoundError(msg, code="unknown_letter", field="after")
            chosen = chosen[at + 1 :]
        page = chosen[:limit]
        return {
            "group": group,
            "letters": [self._line(head, replayed=head.source in answered) for head in page],
            "total": len(chosen),
            "next": page[-1].id if len(chosen) > len(page) else None,
        }

    def show(self, group: str, letter_id: str) -> dict[str, Any]:
        """Return one letter: its record, the service's error, and its replay."""
        letter = self._letters.read(group, letter_id)
        heads = self._letters.heads(group)
        head = next((each for each in heads if each.id == letter_id), None)
        if head is None:
            msg = f"{group} has no dead letter {letter_id[:60]}"
            raise NotFoundError(msg, code="unknown_letter", field="id")
        answered = answered_records(heads, self._marks.replayed(group))
        return {
            "group": group,
            **self._line(head, replayed=head.source in answered),
            "error": header(letter.headers, "error"),
            "traceback": header(letter.headers, "traceback"),
            "headers_left_out": int(header(letter.headers, "headers-left-out") or 0),
            "key": _shown(letter.key),
            "value": _shown(letter.value),
            "headers": [
                {"name": name, "size": len(value or b""), **_shown((value or b"")[:SHOWN_BYTES])}
                for name, value in letter.original_headers()
            ],
            "replay": self._marks.read(group, head.uid),
        }

    def replay(self, group: str, request: ReplayRequest) -> dict[str, Any]:
        """Send letters to their group again; return the result of each letter.

        Raises
        ------
        NotFoundError
            If the group or a letter does not exist.
        RetryableError
            If another replay of this group is running, or a backend is away.
        """
        ids, beyond = self._asked(group, request)
        rate = min(request.rate or self._settings.replay_per_second, self._settings.replay_per_second)
        cause = {"by": request.by, "reason": request.reason}
        details: dict[str, Any] = {"group": group, "by": request.by, "again": request.again, "force": request.force}
        operation = self._operations.begin(CAUSE, reason=request.reason, **details, asked=len(ids))
        try:
            report = self._replayer.replay(
                group,
                ids,
                rate=rate,
                again=request.again,
                force=request.force,
                record={"operation_id": operation, **cause},
            )
        except FltsError as error:
            self._operations.end(operation, error=error.message)
            raise
        counts = Counter(str(result.outcome) for result in report.results)
        self._metrics.dead_letters_replayed.labels(group).inc(counts["replayed"])
        replayed = [result.id for result in report.results if result.outcome == "replayed"]
        self._operations.end(operation, None, ids=replayed, **counts)
        self._note_runs(report, details, request.reason, operation)
        return {
            "group": group,
            "operation_id": operation,
            "replayed": counts["replayed"],
            "refused": counts["refused"],
            "already_replayed": counts["already_replayed"],
            "same_record": counts["same_record"],
            "results": [
                {
                    name: value
                    for name in ("id", "outcome", "code", "message")
                    if (value := getattr(result, name)) is not None
                }
                for result in report.results
            ],
            "remaining": [*report.remaining, *beyond],
        }

    def measure(self) -> Sequence[Event]:
        """Set the metrics of every account; the service calls this as a tick."""
        for account in self._accounting.accounts(self._marks.replayed):
            for state, count in _states(account).items():
                self._metrics.pipeline_messages.labels(account.topic, account.group, state).set(count)
        return ()

    def forget_old(self) -> Sequence[Event]:
        """Remove the marks of letters that the brokers have removed; the service calls this as a tick."""
        removed = self._marks.forget_old()
        if removed:
            log.info("replay_marks_removed", removed=removed)
        return ()

    def _choose(self, group: str, choice: Choice) -> tuple[list[Head], set[Any]]:
        heads = self._letters.heads(group)
        answered = answered_records(heads, self._marks.replayed(group))
        topic = None if choice.topic is None else f"{self._settings.namespace_prefix}{choice.topic}"
        chosen = [
            head
            for head in heads
            if (choice.error_code is None or head.error_code == choice.error_code)
            and (choice.identifier is None or head.identifier == choice.identifier)
            and (topic is None or head.source[0] == topic)
            and not (choice.waiting and head.source in answered)
        ]
        return chosen, answered

    def _asked(self, group: str, request: ReplayRequest) -> tuple[list[str], list[str]]:
        """Return the ids of the letters to send now, and the ids beyond the limit."""
        ids = request.ids
        if ids is None:
            chosen, _ = self._choose(group, request.choice)
            ids = tuple(head.id for head in chosen)
        ids = tuple(dict.fromkeys(ids))
        return list(ids[: request.limit]), list(ids[request.limit :])

    def _line(self, head: Head, *, replayed: bool) -> dict[str, Any]:
        topic, partition, offset = head.source
        return {
            "id": head.id,
            "at": _iso(head),
            "topic": topic.removeprefix(self._settings.namespace_prefix),
            "partition": partition,
            "offset": offset,
            "identifier": head.identifier,
            "event": head.event,
            "error_code": head.error_code,
            "error": head.error,
            "attempts": head.attempts,
            "size": head.size,
            "replayed": replayed,
        }

    def _note_runs(self, report: Report, details: dict[str, Any], reason: str | None, operation: str) -> None:
        """Record the replay in the operations of each run whose letters were replayed."""
        of_run: dict[tuple[str, str], list[str]] = {}
        for result in report.results:
            if result.event is not None and result.outcome == "replayed":
                of_run.setdefault((result.event.identifier, result.event.pipeline_run_id), []).append(result.id)
        for (identifier, run), ids in list(of_run.items())[:NOTED_RUNS]:
            self._operations.done(
                CAUSE, identifier, pipeline_run_id=run, reason=reason, **details, ids=ids, part_of=operation
            )


def check_run(run_store: RunStore) -> Callable[[str, Event], str | None]:
    """Return the check that refuses letters whose replay has no effect, because their run has ended or is gone."""
    runs = run_store.runs

    def check(group: str, event: Event) -> str | None:
        identifier, run = event.identifier, event.pipeline_run_id
        if runs.deleted(identifier, run) or runs.read(identifier, run) is None:
            msg = f"the run {run} of {identifier} was deleted, or never recorded"
            raise ConflictError(msg, code="run_unknown", field="pipeline_run_id")
        if group == FORECASTS:
            _check_forecast(run_store.forecasts, identifier, run)
            return None
        if isinstance(event, RefitRequest | ModelRefit):
            _check_refit(run_store.evaluations, identifier, run)
            return None
        ended = runs.end(identifier, run)
        if ended is None:
            return None
        if group in DEPLOYMENTS and ended.decided:
            return f"the run is {ended} and stays so: `flts retrain {identifier}` judges the model once it is trained"
        remedy = f"`flts retrain {identifier}` starts a new one"
        if ended.decided:
            remedy = f"`flts evaluate {run}` judges its models again, {remedy}"
        msg = f"the run {run} has ended as {ended}; {remedy}"
        raise ConflictError(msg, code="run_ended", field="pipeline_run_id")

    return check


def _check_refit(evaluations: Evaluations, identifier: str, run: str) -> None:
    refit = evaluations.refit(identifier, run)
    if refit is not None:
        msg = f"the refit of {run} is {refit.get('decision')} already; `flts retrain {identifier}` starts a new run"
        raise ConflictError(msg, code="refit_ended", field="pipeline_run_id")


def _check_forecast(forecasts: Forecasts, identifier: str, run: str) -> None:
    forecast = forecasts.read(identifier, run)
    if forecast is not None:
        msg = (
            f"the test rows of {run} are {forecast.get('status')} already; `flts retrain {identifier}` starts a new run"
        )
        raise ConflictError(msg, code="run_ended", field="pipeline_run_id")


def _states(account: Account) -> dict[str, int]:
    return {
        "sent": account.sent,
        "done": account.done,
        "in_flight": account.in_flight,
        "dead_letter": account.dead_letters,
        "replayed": account.replayed,
        "lost": account.lost + account.ahead,
    }


def _iso(head: Head) -> str | None:
    return None if head.at is None else head.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _shown(data: bytes | None) -> dict[str, Any]:
    """Return bytes as text, or as base64 if they are not UTF-8."""
    if data is None:
        return {"text": None}
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
