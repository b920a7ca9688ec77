"""Processes one Kafka record: decodes it, runs the handler in a bounded number of attempts, publishes the results."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from flts.contracts.events import Event, RunProgress
from flts.contracts.topics import Topic
from flts.errors import BackendAwayError, FltsError, RejectedError, RunDeletedError
from flts.killpoints import reached
from flts.messaging.attempts import Attempts, AttemptsExhaustedError
from flts.messaging.codec import ONLY_GROUP, dead_letter_headers, decode, header
from flts.messaging.progress import ProgressReporter
from flts.observability.logs import bind, error_fields, get_logger
from flts.observability.metrics import Metrics
from flts.observability.tracing import Trace, use_trace
from flts.processes.replayed import replaying
from flts.processes.worker import WorkerStartError, WorkInterruptedError
from flts.service import Progress, Subscription

log = get_logger(__name__)
T = TypeVar("T")

Outcome = Literal["done", "skipped", "dead_letter", "dropped", "interrupted", "failed"]
MAX_WAIT_SECONDS = 30.0
"""Seconds; the longest wait before the next request to a backend that is away."""
MAX_BACKOFF_SECONDS = 60.0
MAX_MESSAGE_CHARACTERS = 2_000
HEADER_LIMITS_BYTES = (2**21, 32_768, 1_024, 128)
"""Bytes of a dead letter's headers. If the brokers refuse the size, the next limit is tried; the value is never cut."""


@dataclass(frozen=True, slots=True)
class Record:
    """A Kafka record without the types of the Kafka client."""

    topic: Topic
    full_topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class Stopping:
    """The two phases of a service's end: first no new work begins, and DRAIN_SECONDS later running work is ended."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        """Set when the service begins to stop: no new work or attempt begins."""
        self.over = threading.Event()
        """Set when the time to stop is over: running work is ended and its attempt withdrawn."""


class Sender(Protocol):
    """The part of the publisher that a delivery uses."""

    def publish_all(self, events: Iterable[Event], *, trace: Trace | None = None) -> None:
        """Publish events and wait for the brokers' acknowledgement."""
        ...

    def publish_soon(self, event: Event) -> None:
        """Publish an event without waiting for the acknowledgement."""
        ...

    def publish_record(
        self, topic: str, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
    ) -> None:
        """Publish a record unchanged and wait for the brokers' acknowledgement."""
        ...


Work = Callable[[Event, Progress], Sequence[Event]]


@dataclass
class Delivery:
    """Processes the records of a subscription, one at a time. Its calls block, so the loop has a thread for them.

    Parameters
    ----------
    work : function
        The handler, in this process or in a child process.
    dead_letters : str or None
        Full name of the topic of dead letters. None for a replica that reads every partition without a group: it drops
        a record that fails.
    only_group : str
        Name of this group, without prefix. A record whose header ``only-group`` names another group is skipped.
    """

    service: str
    subscription: Subscription
    work: Work
    attempts: Attempts
    publisher: Sender
    metrics: Metrics
    stopping: Stopping
    max_attempts: int
    backoff_seconds: float
    dead_letters: str | None
    only_group: str
    _attempt: tuple[Event, int] | None = field(default=None, init=False)
    _begun: float | None = field(default=None, init=False)

    def deliver(self, record: Record) -> Outcome:
        """Process a record and return its outcome; the caller commits the offset unless it is ``interrupted``.

        Raises
        ------
        WorkerStartError
            If no child process can be started, so the service cannot process any record.
        """
        trace = Trace.parse(header(record.headers, "traceparent")) or Trace.start()
        position = {"topic": record.full_topic, "partition": record.partition, "offset": record.offset}
        with bind(**position), use_trace(trace):
            try:
                outcome = self._deliver(record)
            except WorkInterruptedError:
                log.info("work_interrupted")
                outcome = "interrupted"
        self.metrics.messages.labels(topic=record.topic.name, outcome=outcome).inc()
        return outcome

    def release(self) -> None:
        """Withdraw the running attempt: another replica has the partition now, or the service stops during the work."""
        running = self._attempt
        if running is not None:
            try:
                self.attempts.withdraw(*running)
            except FltsError as error:
                log.warning("attempt_not_forgiven", error=str(error), event_id=running[0].event_id)

    def seconds_working(self) -> float:
        """Return for how many seconds the handler has worked in the running attempt; 0 between two attempts."""
        begun = self._begun
        return 0.0 if begun is None else time.monotonic() - begun

    def _deliver(self, record: Record) -> Outcome:
        meant_for = header(record.headers, ONLY_GROUP)
        if meant_for is not None and meant_for != self.only_group:
            log.debug("message_skipped", only_group=meant_for)
            return "skipped"
        reached("message-read.before", record.topic.name, record.key)
        try:
            event = decode(record.topic, record.value, record.headers)
        except RejectedError as error:
            return self._give_up(record, None, error, attempts=0)
        if not self.subscription.wants(event):
            log.debug("message_skipped", kind=type(event).__name__)
            return "skipped"
        reached("message-read.after", record.topic.name, record.key)
        ids = {"identifier": event.identifier, "pipeline_run_id": event.pipeline_run_id}
        fields = bind(**ids, config_hash=event.config_hash, event_id=event.event_id)
        with fields, replaying(replayed=meant_for is not None):
            # A progress event arrives every second, so its line is only for debugging.
            write = log.debug if isinstance(event, RunProgress) else log.info
            write("kafka_receive", kind=type(event).__name__, object_key=getattr(event, "object_key", None))
            return self._attempt_until_done(record, event)

    def _attempt_until_done(self, record: Record, event: Event) -> Outcome:
        away = 0
        while True:
            try:
                nonce = uuid.uuid4().hex  # each retry of the put uses the same nonce, so an attempt counts once
                number = self._patiently(lambda nonce=nonce: self.attempts.begin(event, nonce))  # type: ignore[misc] # the default binds the value
            except AttemptsExhaustedError as error:
                return self._give_up(record, event, error, attempts=error.attempts)
            self._attempt = (event, number)
            try:
                produced = self._work(event)
                self._patiently(lambda produced=produced: self.publisher.publish_all(produced))  # type: ignore[misc] # the default binds the value
            except (WorkInterruptedError, WorkerStartError):
                self._withdraw(event, number)
                raise
            except BackendAwayError as error:
                self._patiently(lambda number=number: self.attempts.withdraw(event, number))  # type: ignore[misc] # the default binds the value
                away += 1
                wait = min(
                    MAX_WAIT_SECONDS, max(error.retry_after_seconds, self.backoff_seconds) * 2 ** min(away - 1, 8)
                )
                log.warning("backend_away", error=str(error), wait_seconds=wait)
                self._wait(wait)
            except RunDeletedError:
                self._patiently(lambda number=number: self.attempts.clear(event, number))  # type: ignore[misc] # the default binds the value
                return "skipped"
            except RejectedError as error:
                return self._give_up(record, event, error, attempts=number)
            except Exception as error:  # noqa: BLE001 - a bug or a retryable error: retried, then dead-lettered
                if number >= self.max_attempts:
                    return self._give_up(record, event, error, attempts=number)
                self._defer(event, number, error)
            else:
                self._patiently(lambda number=number: self.attempts.clear(event, number))  # type: ignore[misc] # the default binds the value
                return "done"
            finally:
                self._attempt = None

    def _work(self, event: Event) -> Sequence[Event]:
        progress = ProgressReporter(self.publisher.publish_soon, self.service, event)
        self._begun = time.monotonic()
        self.metrics.work_in_progress.inc()
        try:
            return list(self.work(event, progress))
        finally:
            self.metrics.work_in_progress.dec()
            self._begun = None
            progress.flush()

    def _defer(self, event: Event, number: int, error: Exception) -> None:
        details = error_fields(error)
        self._patiently(lambda: self.attempts.failed(event, number, details["error"]))
        wait = min(MAX_BACKOFF_SECONDS, self.backoff_seconds * 2 ** (number - 1))
        log.warning(
            self.subscription.log_events.retry,
            object_key=getattr(event, "object_key", None),
            attempt=number,
            wait_seconds=wait,
            **details,
        )
        self.metrics.messages.labels(topic=self._bare_topic(event), outcome="retried").inc()
        self._wait(wait)

    def _give_up(self, record: Record, event: Event | None, error: Exception, *, attempts: int) -> Outcome:
        details = error_fields(error)
        if isinstance(error, AttemptsExhaustedError):
            details = {"error": str(error), "error_code": "tries_exhausted"}
        word = "dead_letter" if self.dead_letters else "message_dropped"
        log.error((event and self.subscription.log_events.failed) or word, attempts=attempts, **details)
        if self.dead_letters is not None:
            self._publish_dead_letter(self.dead_letters, record, details, attempts)
            self.metrics.dead_letters.labels(topic=record.topic.name).inc()
        # A refused event (`RejectedError`) is not retried, so it exhausts no retries.
        if self.subscription.child and not isinstance(error, RejectedError):
            self.metrics.training_retries_exhausted.inc()
        if event is not None:
            self._publish_exhausted(event, error, details["error"][:MAX_MESSAGE_CHARACTERS])
            self._patiently(lambda: self.attempts.clear(event, attempts))
        return "dead_letter" if self.dead_letters is not None else "dropped"

    def _publish_exhausted(self, event: Event, error: Exception, message: str) -> None:
        on_exhausted = self.subscription.on_exhausted
        if on_exhausted is None:
            return
        reason = error if isinstance(error, FltsError) else None

        def publish() -> None:
            self.publisher.publish_all(on_exhausted(event, reason, message))

        try:
            self._patiently(publish)
        except WorkInterruptedError:
            raise
        except Exception:  # the dead letter is published; raising here would cause an endless redelivery
            log.exception("on_exhausted_error")

    def _publish_dead_letter(self, topic: str, record: Record, details: dict[str, str], attempts: int) -> None:
        reasons = {
            "source-topic": record.full_topic,
            "source-partition": str(record.partition),
            "source-offset": str(record.offset),
            "attempts": str(attempts),
            "error_code": details["error_code"],
            "error": details["error"][:MAX_MESSAGE_CHARACTERS],
            "traceback": details.get("traceback", ""),
        }

        def publish() -> None:
            for limit in HEADER_LIMITS_BYTES:
                headers = dead_letter_headers(record.headers, reasons, limit_bytes=limit)
                try:
                    self.publisher.publish_record(topic, record.key, record.value, headers)
                except RejectedError as error:
                    too_large = error
                else:
                    return
            # The dead letter with the whole record is too large for the topic. The error below makes `_patiently` retry
            # until an operator raises the topic's size limit, because a shortened record could not be replayed.
            raise BackendAwayError(too_large.message, code=too_large.code, retry_after_seconds=MAX_WAIT_SECONDS)

        self._patiently(publish)

    def _patiently(self, action: Callable[[], T]) -> T:
        """Call the action until no backend is away. The results of the work stay in memory meanwhile."""
        wait = self.backoff_seconds
        while True:
            try:
                return action()
            except BackendAwayError as error:
                log.warning("backend_away", error=str(error), wait_seconds=wait)
                self._wait(wait)
                wait = min(MAX_WAIT_SECONDS, wait * 2)

    def _wait(self, seconds: float) -> None:
        if self.stopping.asked.wait(seconds):
            msg = "the service stops"
            raise WorkInterruptedError(msg)

    def _withdraw(self, event: Event, number: int) -> None:
        try:
            self.attempts.withdraw(event, number)
        except FltsError as error:
            log.warning("attempt_not_forgiven", error=str(error), attempt=number)

    def _bare_topic(self, event: Event) -> str:
        return next((topic.name for topic in self.subscription.topics if type(event) in topic.events), "unknown")
