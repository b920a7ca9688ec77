"""The consume loop of all services. It processes one record at a time, and continues to poll while a handler works.

The order is: decode the record, run the handler, publish the results and wait for their acknowledgement, commit the
offset. `Delivery` does the first three in a second thread. Only the loop's thread uses the Kafka consumer.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from flts.contracts.topics import Topic
from flts.errors import BackendAwayError
from flts.killpoints import reached
from flts.messaging.delivery import Delivery, Outcome, Record, Stopping
from flts.messaging.kafka import consumer_config, full_name
from flts.messaging.standstill import Place, Standstills
from flts.observability.health import Health
from flts.observability.logs import get_logger
from flts.observability.metrics import EACH_REPLICA, Metrics
from flts.service import Subscription
from flts.settings import KafkaSettings

log = get_logger(__name__)

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 0.5
"""Seconds of work before the loop pauses its partitions; a pause drops prefetched records, so short work needs none."""
SILENT_SECONDS = 60.0
REQUEST_SECONDS = 2.0
LAG_PERIOD_SECONDS = 10.0
RETRY_SECONDS = 1.0
CLOSE_SECONDS = 3.0
OVERDUE_SECONDS = 60.0
"""Seconds of work beyond the deadline until the heartbeat of /healthz stops; it fails `SILENT_SECONDS` later."""


class ConsumeLoop:
    """Consumes the topics of one subscription until the service stops.

    Parameters
    ----------
    subscription : Subscription
        Topics, group and handler.
    delivery : Delivery
        Processes each record.
    client_id : str
        The service's name.
    on_fatal : function
        Called with the reason when an error ends the loop; the service must then end.
    """

    def __init__(
        self,
        subscription: Subscription,
        delivery: Delivery,
        settings: KafkaSettings,
        *,
        client_id: str,
        health: Health,
        metrics: Metrics,
        stopping: Stopping,
        on_fatal: Callable[[str], None],
    ) -> None:
        self.name = f"consume-{'-'.join(topic.name for topic in subscription.topics)}"
        self._subscription = subscription
        self._delivery = delivery
        self._settings = settings
        self._client_id = client_id
        self._health = health
        self._metrics = metrics
        self._stopping = stopping
        self._on_fatal = on_fatal
        self._topics: dict[str, Topic] = {full_name(settings, topic.name): topic for topic in subscription.topics}
        self._group = None
        if subscription.mode == "group":
            self._group = full_name(settings, subscription.group or client_id)
        self._consumer = self._new_consumer()
        self._crew = _Crew(delivery, self.name)
        self._job: _Job | None = None
        self._paused = False
        self._owned: set[Place] = set()
        self._uncommitted: dict[Place, int] = {}
        self._recommit_at = 0.0
        self._connected = True
        self.abandoned = False
        """Whether a thread that cannot be stopped still runs: a handler's, or the one that closes the client."""
        self._cluster_id: str | None = None
        self._ends: dict[Place, int] | None = None
        self._begun_at: dict[Place, int] = {}
        self._next_check = 0.0
        self._next_lag = time.monotonic() + LAG_PERIOD_SECONDS
        self._standstills = Standstills()

    @property
    def connected(self) -> bool:
        """Whether the brokers answer, as far as the latest request or error shows."""
        return self._connected

    def take_ends(self, timeout_seconds: float = REQUEST_SECONDS) -> None:
        """Store the end offsets of the partitions, before the service reads its state from the store.

        Only for a replica that reads every partition without a group. The state covers earlier records, so `run` reads
        from these offsets. Without this call, or if the brokers do not answer, `run` reads from the first record, which
        is also correct and slower.
        """
        if self._group is not None:
            return
        try:
            partitions = self._partitions(timeout_seconds)
            self._ends = {
                (part.topic, part.partition): self._consumer.get_watermark_offsets(part, timeout=timeout_seconds)[1]
                for part in partitions
            }
        except (KafkaException, BackendAwayError) as error:
            log.warning("ends_unknown", topics=list(self._topics), error=str(error))

    def run(self) -> None:
        """Consume until `Stopping.asked` is set; the caller provides a thread for this loop alone."""
        self._health.watch(self.name, silent_seconds=SILENT_SECONDS)
        self._crew.start()
        try:
            self._begin()
            while not self._stopping.asked.is_set():
                self._round()
        except Exception as error:  # any error ends this loop, so the service must end too
            log.exception("consume_loop_error")
            self._on_fatal(f"the consume loop of {', '.join(self._topics)} failed: {type(error).__name__}: {error}")
        finally:
            self._end()

    def _new_consumer(self) -> Consumer:
        config = consumer_config(self._settings, self._client_id, self._group)
        return Consumer({**config, "error_cb": self._on_error, "on_commit": self._on_commit})

    def _begin(self) -> None:
        log.info("worker_start", topics=list(self._topics), group=self._group, mode=self._subscription.mode)
        self._subscribe()

    def _subscribe(self) -> None:
        if self._group is not None:
            self._consumer.subscribe(
                list(self._topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
            )

    def _round(self) -> None:
        self._health.beat(self.name)
        self._keep_house()
        message = self._consumer.poll(POLL_SECONDS)
        if message is None:
            self._standstills.nothing_came()
            return
        if message.error() is not None:
            self._on_error(message.error())
            return
        self._work_on(message)

    def _work_on(self, message: Message) -> None:
        record = self._record(message)
        place = (record.full_topic, record.partition)
        job = self._job = self._crew.take(record, place)
        try:
            if not job.done.wait(PATIENCE_SECONDS):
                self._poll_until_done(job)
        finally:
            self._job = None
        if job.error is not None:
            raise job.error
        if job.outcome not in (None, "interrupted") and not job.lost:
            self._commit(place, record.offset + 1)
        elif job.lost:
            log.info("partition_lost_during_work", topic=place[0], partition=place[1], offset=record.offset)
        self._resume()

    def _poll_until_done(self, job: _Job) -> None:
        self._pause()
        while not job.done.is_set():
            if self._alive():
                self._health.beat(self.name)
            if self._stopping.over.is_set() and not job.done.wait(PATIENCE_SECONDS):
                # A handler in a thread cannot be stopped, so the loop stops waiting for it. The loop withdraws the
                # attempt, so that it does not count, and commits no offset, so that the broker delivers the record
                # again.
                self._delivery.release()
                job.outcome, self.abandoned = "interrupted", True
                return
            self._keep_house()
            message = self._consumer.poll(POLL_SECONDS)
            if message is None:
                continue
            if message.error() is not None:
                self._on_error(message.error())
            else:  # the client fetched this record before the pause; after the seek the loop reads it again later
                self._consumer.seek(TopicPartition(message.topic(), message.partition(), message.offset()))

    def _alive(self) -> bool:
        # The deadline is for the work of one attempt. All attempts at a record and the waits for backends may last
        # longer together.
        return self._delivery.seconds_working() < self._settings.work_deadline_seconds + OVERDUE_SECONDS

    def _keep_house(self) -> None:
        now = time.monotonic()
        if self._group is None and now >= self._next_check and not self._owned:
            self._next_check = now + RETRY_SECONDS
            self._assign_all()
        if not self._connected and now >= self._next_check:
            self._next_check = now + RETRY_SECONDS
            self._look_for_brokers()
        if self._uncommitted and self._recommit_at and now >= self._recommit_at:
            self._recommit_at = 0.0
            self._send_commits()
        if now >= self._next_lag and self._connected:
            self._next_lag = now + LAG_PERIOD_SECONDS
            self._measure_lag()

    def _assign_all(self) -> None:
        try:
            partitions = self._partitions(REQUEST_SECONDS)
            self._cluster_id = self._consumer.list_topics(timeout=REQUEST_SECONDS).cluster_id
        except (KafkaException, BackendAwayError) as error:
            log.warning("backend_away", error=str(error))
            return
        for part in partitions:
            end = None if self._ends is None else self._ends.get((part.topic, part.partition), 0)
            part.offset = OFFSET_BEGINNING if end is None else end
        self._begun_at = {(part.topic, part.partition): part.offset for part in partitions}
        self._consumer.assign(partitions)
        self._owned = {(part.topic, part.partition) for part in partitions}
        if self._paused:
            self._consumer.pause(partitions)
        log.info("partitions_assigned", count=len(partitions), from_start=self._ends is None)

    def _look_for_brokers(self) -> None:
        try:
            cluster_id = self._consumer.list_topics(timeout=REQUEST_SECONDS).cluster_id
        except KafkaException:
            return
        self._connected = True
        log.info("brokers_answer_again")
        if self._group is None and self._cluster_id is not None and cluster_id != self._cluster_id:
            # The embedded broker loses its topics when it ends, so the loop reads a new cluster from its first record.
            log.info("cluster_changed", cluster_id=cluster_id)
            self._cluster_id, self._ends, self._owned = cluster_id, None, set()

    def _partitions(self, timeout_seconds: float) -> list[TopicPartition]:
        known = self._consumer.list_topics(timeout=timeout_seconds).topics
        missing = sorted(name for name in self._topics if name not in known or not known[name].partitions)
        if missing:
            msg = f"topics missing on {self._settings.kafka_bootstrap_servers}: {', '.join(missing)}"
            raise BackendAwayError(msg, code="topics_missing")
        return [TopicPartition(name, number) for name in self._topics for number in known[name].partitions]

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign(partitions)
        self._owned |= {(part.topic, part.partition) for part in partitions}
        if self._paused and partitions:
            consumer.pause(partitions)
        log.info("partitions_assigned", partitions=[f"{part.topic}/{part.partition}" for part in partitions])

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if consumer is not self._consumer:  # a late callback of a client that `_renew` has replaced
            return
        gone = {(part.topic, part.partition) for part in partitions}
        self._owned -= gone
        for place in gone:
            self._uncommitted.pop(place, None)
        job = self._job
        if job is not None and job.place in gone and not job.lost:
            job.lost = True
            threading.Thread(target=self._delivery.release, name="release", daemon=True).start()
        consumer.incremental_unassign(partitions)
        log.info("partitions_revoked", partitions=[f"{part.topic}/{part.partition}" for part in partitions])

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):  # noqa: SLF001 - their public names
            if self._connected:
                log.warning("brokers_away", error=error.str())
            self._connected = False
        elif error.fatal():
            raise KafkaException(error)
        elif error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
            log.warning("kafka_error", error=error.str(), code=error.name())

    def _pause(self) -> None:
        self._paused = True
        self._consumer.pause(self._consumer.assignment())

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._consumer.resume(self._consumer.assignment())

    def _commit(self, place: Place, offset: int) -> None:
        if self._group is not None and place in self._owned:
            reached("commit.before", *place)
            self._uncommitted[place] = offset
            self._send_commits()

    def _send_commits(self) -> None:
        # The loop does not wait for the broker's answer. It repeats a failed commit after RETRY_SECONDS or with the
        # next commit. If no commit succeeds, the broker delivers the record again.
        offsets = [TopicPartition(topic, part, offset) for (topic, part), offset in self._uncommitted.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self._refused(error.args[0])

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        for part in partitions:
            place, reason = (part.topic, part.partition), error or part.error
            if reason is not None:
                self._refused(reason)
            elif self._uncommitted.get(place) == part.offset:
                del self._uncommitted[place]
                reached("commit.after", *place)

    def _refused(self, error: KafkaError) -> None:
        log.warning("commit_refused", error=error.str(), code=error.name())
        self._recommit_at = time.monotonic() + RETRY_SECONDS

    def _measure_lag(self) -> None:
        places = [TopicPartition(topic, part) for topic, part in sorted(self._owned)]
        lag = dict.fromkeys(self._topics, 0)
        stuck = []
        try:
            read = self._consumer.position(places)
            done = self._consumer.committed(places, timeout=REQUEST_SECONDS) if self._group and places else read
            for at, behind in zip(read, done, strict=True):
                place = (at.topic, at.partition)
                low, high = self._consumer.get_watermark_offsets(at, timeout=REQUEST_SECONDS)
                start = max(low, behind.offset if self._group else self._begun_at.get(place, 0))
                lag[at.topic] += max(0, high - (behind.offset if behind.offset >= 0 else start))
                if self._standstills.stands_still(place, at.offset if at.offset >= 0 else start, high):
                    stuck.append(place)
        except KafkaException:
            self._standstills.forget()
            return  # `_on_error` reports the error; the gauge keeps its last value
        for name, behind_all in lag.items():
            # Two subscriptions of one service may read the same topic, so the label names the group.
            group = (self._subscription.group or self._client_id) if self._group is not None else EACH_REPLICA
            self._metrics.consumer_lag.labels(topic=self._topics[name].name, group=group).set(behind_all)
        if stuck and self._job is None:
            self._renew(stuck)

    def _renew(self, stuck: list[Place]) -> None:
        """Replace a Kafka client that has stopped reading some of its partitions."""
        log.warning("consumer_renewed", partitions=[f"{topic}/{part}" for topic, part in stuck])
        if self._group is None:
            read = self._consumer.position([TopicPartition(*place) for place in self._owned])
            self._ends = {
                (at.topic, at.partition): at.offset if at.offset >= 0 else self._begun_at[at.topic, at.partition]
                for at in read
            }
        self._close_consumer()
        self._owned, self._uncommitted = set(), {}
        self._standstills.forget()
        self._next_check = 0.0
        self._consumer = self._new_consumer()
        self._subscribe()

    def _end(self) -> None:
        self._crew.stop()
        self._health.forget(self.name)
        self._close_consumer()

    def _close_consumer(self) -> None:
        try:
            if self._uncommitted and self._connected:
                offsets = [TopicPartition(topic, part, offset) for (topic, part), offset in self._uncommitted.items()]
                self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            log.warning("commit_refused", error=str(error))
        # `close` leaves the group and waits for the broker. If the broker does not answer, the thread is abandoned
        # after CLOSE_SECONDS, and the broker removes the consumer at the session timeout.
        closing = threading.Thread(target=self._consumer.close, name=f"{self.name}-close", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)
        if closing.is_alive():
            log.warning("consumer_not_closed", topics=list(self._topics))
            self.abandoned = True

    def _record(self, message: Message) -> Record:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        assert topic is not None
        assert partition is not None
        assert offset is not None
        headers: Any = message.headers() or []
        return Record(
            topic=self._topics[topic],
            full_topic=topic,
            partition=partition,
            offset=offset,
            key=message.key(),
            value=message.value(),
            headers=headers,
        )


@dataclass(eq=False)
class _Job:
    record: Record
    place: Place
    done: threading.Event = field(default_factory=threading.Event)
    outcome: Outcome | None = None
    error: Exception | None = None
    lost: bool = False
    """The broker moved the partition to another replica during the work, so this replica commits no offset."""


class _Crew:
    """The thread that runs handlers. It lives as long as the loop: a child process ends with its starting thread."""

    def __init__(self, delivery: Delivery, name: str) -> None:
        self._delivery = delivery
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"{name}-work", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def take(self, record: Record, place: Place) -> _Job:
        job = _Job(record, place)
        self._jobs.put(job)
        return job

    def stop(self) -> None:
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job.outcome = self._delivery.deliver(job.record)
            except Exception as error:  # noqa: BLE001 - the loop raises the error in its own thread
                job.error = error
            finally:
                job.done.set()
