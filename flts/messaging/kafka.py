"""The configuration of all Kafka clients, the checks of brokers and topics at start, and the publisher."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AdminClient, NewTopic

from flts.contracts import topics as known
from flts.contracts.events import Event
from flts.errors import BackendAwayError, FltsError, RejectedError
from flts.killpoints import reached
from flts.messaging.codec import Headers, encode
from flts.observability.logs import get_logger
from flts.observability.tracing import Trace, current_trace
from flts.settings import KafkaSettings

log = get_logger(__name__)

FETCH_WAIT_MS = 50
"""Milliseconds; the embedded broker answers a fetch only after this time. Latency: 15 ms, or 364 at the default 500."""
RECONNECT_MAX_MS = 1_000
REQUEST_SECONDS = 5.0
TOPIC_LOOK_SECONDS = 0.1
DELIVERY_MS = 20_000
MAX_DEAD_LETTER_BYTES = 1_500_000
"""Bytes; the brokers accept records of 1,048,588 by default, and a dead letter is such a record plus its reasons."""
DEAD_LETTER_RETENTION_SECONDS = 30 * 24 * 3600

_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE, KafkaError.RECORD_LIST_TOO_LARGE)

REPEAT_SECONDS = 30.0
PADDING_NAMES, PADDING_CHARACTERS = 480, 205
"""480 topic names of 205 characters make a request of 96 KiB; the answer is larger."""

RawHeaders = list[tuple[str, bytes | None]]


def common_config(settings: KafkaSettings, client_id: str) -> dict[str, Any]:
    """Return the configuration that all Kafka clients share."""
    return {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "client.id": client_id,
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": RECONNECT_MAX_MS,
        "socket.keepalive.enable": True,
        "socket.connection.setup.timeout.ms": 5_000,
        "logger": _library_log(),
    }


def producer_config(settings: KafkaSettings, client_id: str) -> dict[str, Any]:
    """Return the configuration of an idempotent producer: all in-sync replicas have a record that is acknowledged."""
    return {
        **common_config(settings, client_id),
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": 2,
        "delivery.timeout.ms": DELIVERY_MS,
        "message.max.bytes": MAX_DEAD_LETTER_BYTES,
    }


def consumer_config(settings: KafkaSettings, client_id: str, group: str | None) -> dict[str, Any]:
    """Return the configuration of a consumer that commits no offset by itself; the consume loop commits.

    Parameters
    ----------
    group : str or None
        The full name of the group; None for a replica that reads every partition without a group.
    """
    config = {
        **common_config(settings, client_id),
        # librdkafka requires a group.id even without a subscription. No client joins this group or commits to it.
        "group.id": group or f"{settings.namespace_prefix}{client_id}-no-group",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": FETCH_WAIT_MS,
        # Records are small and processed one at a time, so a short fetch queue is sufficient.
        "queued.min.messages": 100,
        "topic.metadata.refresh.interval.ms": 30_000,
        "max.poll.interval.ms": settings.kafka_max_poll_interval_ms,
    }
    if group is not None and settings.kafka_group_protocol == "consumer":
        # Under KIP-848 the broker sets session, heartbeat and assignor; librdkafka refuses these settings.
        return {**config, "group.protocol": "consumer"}
    return {
        **config,
        "group.protocol": "classic",
        "session.timeout.ms": min(10_000, settings.kafka_max_poll_interval_ms),
        # Milliseconds; the broker announces a rebalance in the answer to a heartbeat, so a consumer notices it within 1
        # s.
        "heartbeat.interval.ms": 1_000,
        # The strategy is cooperative: when a replica joins the group, the other replicas keep most partitions and
        # continue to read them.
        "partition.assignment.strategy": "cooperative-sticky",
    }


def full_name(settings: KafkaSettings, name: str) -> str:
    """Return the full name of a topic or group: this installation's prefix and the name."""
    return f"{settings.namespace_prefix}{name}"


def check_broker(settings: KafkaSettings, client_id: str, *, timeout_seconds: float = REQUEST_SECONDS) -> None:
    """Request the list of topics from the brokers.

    Raises
    ------
    BackendAwayError
        If the brokers do not answer in time; the message names their address.
    """
    _list_topics(AdminClient(common_config(settings, client_id)), settings, timeout_seconds)


def check_large_request(settings: KafkaSettings, client_id: str, *, timeout_seconds: float = REQUEST_SECONDS) -> None:
    """Send 96 KiB to the brokers and receive as much: a network path that stalls after 64 KiB passes small requests.

    The request names topics that do not exist, and does not create them.

    Raises
    ------
    BackendAwayError
        If the brokers do not answer in time; the message names their address.
    """
    names = [f"_probe-{number:03d}-".ljust(PADDING_CHARACTERS, "x") for number in range(PADDING_NAMES)]
    admin = AdminClient(common_config(settings, client_id))
    for answer in admin.describe_topics(TopicCollection(names), request_timeout=timeout_seconds).values():
        try:
            answer.result(timeout=timeout_seconds + 1)
        except (KafkaException, TimeoutError) as error:
            reason = error.args[0] if isinstance(error, KafkaException) else None
            if reason is not None and reason.code() > 0:
                continue  # a broker sent this error, so the brokers answer
            failure = reason.str() if reason is not None else "no answer"
            msg = f"Kafka at {settings.kafka_bootstrap_servers} did not answer a request of 96 KiB: {failure}"
            raise BackendAwayError(msg, code="kafka_away") from error


def ensure_topics(settings: KafkaSettings, client_id: str, groups: Iterable[str] = ()) -> None:
    """Create the missing topics of the pipeline, and the dead-letter topics of these groups (names without prefix).

    A service calls this at its start, because publishing to a missing topic ends only in a timeout.

    Raises
    ------
    BackendAwayError
        If the brokers do not answer, or if they refuse to create a missing topic; the message names the topics.
    """
    wanted = {
        full_name(settings, topic.name): {"retention.ms": str(topic.retention_seconds * 1000)} for topic in known.ALL
    }
    for group in groups:
        wanted[full_name(settings, known.dead_letter_topic(group))] = {
            "retention.ms": str(DEAD_LETTER_RETENTION_SECONDS * 1000),
            # Bytes: the largest record of any topic plus the headers that a dead letter adds.
            "max.message.bytes": str(MAX_DEAD_LETTER_BYTES),
        }
    admin = AdminClient(common_config(settings, client_id))
    missing = sorted(set(wanted) - _list_topics(admin, settings, REQUEST_SECONDS))
    if not missing:
        return
    refusal = _create(admin, settings, {name: wanted[name] for name in missing})
    deadline = time.monotonic() + REQUEST_SECONDS
    while missing := sorted(set(missing) - _list_topics(admin, settings, REQUEST_SECONDS)):
        # Brokers other than the controller list a new topic with a delay, so the loop lists the topics again until the
        # deadline.
        if refusal is None and time.monotonic() < deadline:
            time.sleep(TOPIC_LOOK_SECONDS)
            continue
        msg = (
            f"topics missing on {settings.kafka_bootstrap_servers}, and the brokers would not create them "
            f"({refusal or 'they said they had'}): {', '.join(missing)}"
        )
        raise BackendAwayError(msg, code="topics_missing", retry_after_seconds=2)


def _list_topics(admin: AdminClient, settings: KafkaSettings, timeout_seconds: float) -> set[str]:
    try:
        # The request lists all topics and names none, because some brokers create a named topic with their default
        # number of partitions.
        return set(admin.list_topics(timeout=timeout_seconds).topics)
    except KafkaException as error:
        msg = f"Kafka at {settings.kafka_bootstrap_servers} did not answer a metadata request: {error.args[0].str()}"
        raise BackendAwayError(msg, code="kafka_away") from error


def _create(admin: AdminClient, settings: KafkaSettings, wanted: dict[str, dict[str, str]]) -> str | None:
    """Create topics; return the reason of the last failure, or None if all topics exist now."""
    new = [NewTopic(name, settings.topic_partitions, -1, config=config) for name, config in wanted.items()]
    refusal = None
    for name, future in admin.create_topics(new, operation_timeout=REQUEST_SECONDS, request_timeout=10).items():
        try:
            future.result(timeout=15)
            log.info("topic_created", topic=name, partitions=settings.topic_partitions)
        except KafkaException as error:
            # Another service that starts at the same time may have created the topic, so TOPIC_ALREADY_EXISTS is no
            # refusal.
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                refusal = error.args[0].str()
        except TimeoutError:
            refusal = "no answer"
    return refusal


class Publisher:
    """Publishes events and checks the brokers' acknowledgement. Thread-safe.

    Parameters
    ----------
    settings : KafkaSettings
        The brokers' address and the prefix of the topics.
    client_id : str
        The service's name.
    acknowledge_seconds : float
        Longest wait for the brokers' acknowledgement.
    """

    def __init__(self, settings: KafkaSettings, client_id: str, *, acknowledge_seconds: float = 25.0) -> None:
        self._settings = settings
        self._config = {**producer_config(settings, client_id), "error_cb": self._on_error}
        self._worn: KafkaError | None = None
        self._acknowledge_seconds = acknowledge_seconds
        self._lock = threading.Lock()
        self._producer = Producer(self._config)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="publisher", daemon=True)
        self._thread.start()

    def publish_all(self, events: Iterable[Event], *, trace: Trace | None = None) -> None:
        """Publish events in order and wait until the brokers have acknowledged all of them.

        Raises
        ------
        RejectedError
            If an event is too large.
        BackendAwayError
            If the brokers did not acknowledge in time. They may have stored some of the events. The caller publishes
            all of them again with the same ids, so the repeat is harmless.
        """
        step = trace or current_trace() or Trace.start()
        records = []
        for event in events:
            key, value, headers = encode(event, step)
            records.append((full_name(self._settings, known.topic_of(event).name), key, value, headers))
        waiting = [self._send(*record) for record in records]
        for delivery, (topic, key, _, _) in zip(waiting, records, strict=True):
            delivery.wait(self._acknowledge_seconds)
            reached("produce.after", topic, key)

    def publish_soon(self, event: Event) -> None:
        """Publish an event such as progress without waiting; drop it if the producer or the brokers refuse it."""
        key, value, headers = encode(event, current_trace())
        topic = full_name(self._settings, known.topic_of(event).name)
        try:
            self._produce(topic, key, value, headers, lambda _error, _message: None)
        except (BackendAwayError, RejectedError):
            log.debug("progress_dropped", topic=topic)

    def publish_record(self, topic: str, key: bytes | None, value: bytes | None, headers: RawHeaders) -> None:
        """Publish a record unchanged, such as a dead letter, and wait until the brokers have acknowledged it.

        Raises
        ------
        RejectedError
            If the brokers accept no record of this size (code ``record_too_large``).
        BackendAwayError
            If the brokers did not acknowledge in time.
        """
        self._send(topic, key, value, headers).wait(self._acknowledge_seconds)
        reached("produce.after", topic, key)

    def close(self, timeout_seconds: float = 3.0) -> None:
        """Send the queued events and stop the thread."""
        self._closed.set()
        self._thread.join(timeout=2)
        self._producer.flush(timeout_seconds)

    def _send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: RawHeaders | Headers
    ) -> _Acknowledgement:
        reached("produce.before", topic, key)
        acknowledgement = _Acknowledgement(topic, self._settings.kafka_bootstrap_servers)
        self._produce(topic, key, value, headers, acknowledgement.receive)
        return acknowledgement

    def _produce(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: RawHeaders | Headers,
        callback: Callable[[KafkaError | None, Any], None],
    ) -> None:
        def delivered(error: KafkaError | None, message: object) -> None:
            if error is not None and error.code() == KafkaError._MSG_TIMED_OUT:  # noqa: SLF001 - the library's public name for it
                self._worn = error
            callback(error, message)

        try:
            with self._lock:
                self._producer.produce(topic, key=key, value=value, headers=headers, on_delivery=delivered)
        except BufferError as error:
            msg = f"the queue of messages for {self._settings.kafka_bootstrap_servers} is full"
            raise BackendAwayError(msg, code="kafka_away") from error
        except KafkaException as error:
            raise _as_flts_error(error.args[0], topic, self._settings.kafka_bootstrap_servers) from error

    def _serve(self) -> None:
        while not self._closed.is_set():
            with self._lock:
                producer = self._producer
            producer.poll(0.1)
            if self._worn is not None:
                # A producer is replaced after a fatal error or a timeout of a record. After a gap in its sequence, an
                # idempotent producer refuses every record. After a timeout, a producer may not find a partition's new
                # leader.
                log.warning("producer_renewed", error=self._worn.str())
                with self._lock:
                    self._producer.purge()
                    self._producer.poll(0)
                    self._worn = None
                    self._producer = Producer(self._config)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._worn = error


class _NowAndThen(logging.Filter):
    """Passes each line of librdkafka once in `REPEAT_SECONDS`: it repeats "connection refused" 20 times a second."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        line = record.getMessage().partition(" [thrd")[0]  # the error's code and the client's name, without the thread
        now = time.monotonic()
        if now - self._last.get(line, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return False
        self._last[line] = now
        return True


def _library_log() -> logging.Logger:
    logger = logging.getLogger("librdkafka")
    if not any(isinstance(known, _NowAndThen) for known in logger.filters):
        logger.addFilter(_NowAndThen())
    return logger


class _Acknowledgement:
    """The brokers' acknowledgement of one record."""

    def __init__(self, topic: str, address: str) -> None:
        self._topic = topic
        self._address = address
        self._done = threading.Event()
        self._error: KafkaError | None = None

    def receive(self, error: KafkaError | None, _message: object) -> None:
        self._error = error
        self._done.set()

    def wait(self, timeout_seconds: float) -> None:
        if not self._done.wait(timeout_seconds):
            msg = f"Kafka at {self._address} did not acknowledge a message on {self._topic} in {timeout_seconds:g} s"
            raise BackendAwayError(msg, code="kafka_away")
        if self._error is not None:
            raise _as_flts_error(self._error, self._topic, self._address)


def _as_flts_error(error: KafkaError, topic: str, address: str) -> FltsError:
    if error.code() in _TOO_LARGE:
        return RejectedError(f"Kafka takes no message of this size on {topic}: {error.str()}", code="record_too_large")
    msg = f"Kafka at {address} did not take a message on {topic}: {error.str()}"
    return BackendAwayError(msg, code="kafka_away")
