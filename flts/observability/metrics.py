"""All metrics of FLTS, declared in one class on a registry that the caller passes."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

disable_created_metrics()  # type: ignore[no-untyped-call] # a creation time per series would double the page
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TRAINING_BUCKETS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
LATENCY_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)

# Label values that `begin_at_zero` exports with the value 0 before their first event.
MESSAGE_OUTCOMES = ("done", "retried", "dead_letter", "dropped", "skipped", "interrupted", "failed")
TICK_OUTCOMES = ("done", "backend_away", "error")
TRAINING_OUTCOMES = ("done", "reused", "failed")
PREPROCESS_OUTCOMES = ("done", "reused", "rejected", "failed")
DECISIONS = ("promoted", "kept", "refused", "superseded")
MODEL_LOAD_OUTCOMES = ("success", "failed", "fetch_failed")
UPLOAD_OUTCOMES = ("accepted", "refused")
HTTP_OUTCOMES = ("2xx", "4xx", "5xx")
MLFLOW_OUTCOMES = ("done", "failed", "refused")
EACH_REPLICA = "each-replica"
"""Value of the label ``group`` for a replica that reads all partitions without a consumer group."""


class Metrics:
    """The metrics of a process.

    Parameters
    ----------
    registry : CollectorRegistry
        The registry on which the metrics are declared. A registry accepts each name once.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, labels, registry=registry, buckets=buckets)

        self.build_info = gauge("flts_build_info", "1; the labels say what runs", "version", "commit", "service")
        self.backend_up = gauge("flts_backend_up", "1 while the backend answers", "backend")

        self.messages = counter(
            "flts_messages_total",
            "Messages by what became of them: done, retried, dead_letter, dropped, skipped, interrupted",
            "topic", "outcome",
        )  # fmt: skip
        self.dead_letters = counter("flts_dead_letters_total", "Messages given up", "topic")
        self.dead_letters_replayed = counter("flts_dead_letters_replayed_total", "Dead letters sent again", "group")
        self.pipeline_messages = gauge(
            "flts_pipeline_messages",
            "Messages of a topic and group by state: sent = done + in_flight + dead_letter; lost",
            "topic", "group", "state",
        )  # fmt: skip
        self.consumer_lag = gauge(
            "flts_consumer_lag", "Messages not yet committed on this replica's partitions", "topic", "group"
        )
        self.work_in_progress = gauge("flts_work_in_progress", "Messages being worked on")
        self.ticks = counter("flts_ticks_total", "Periodic work", "tick", "outcome")
        self.queue_depth = gauge("flts_queue_depth", "Entries waiting in a queue inside the process", "queue")

        self.training_duration = histogram(
            "flts_training_duration_seconds", "Time to train one model", "model_type", buckets=TRAINING_BUCKETS
        )
        self.trainings = counter(
            "flts_trainings_total", "Trainings by how they ended: done, reused, failed", "model_type", "outcome"
        )
        self.refit_duration = histogram(
            "flts_refit_duration_seconds", "Time to fit a promoted model again on all rows", "model_type",
            buckets=TRAINING_BUCKETS,
        )  # fmt: skip
        self.refits = counter(
            "flts_refits_total",
            "Refits by how they ended in the trainer: done, reused, failed",
            "model_type",
            "outcome",
        )
        self.training_stuck = counter("flts_training_stuck_total", "Work stopped because it made no progress")
        self.training_retries_exhausted = counter(
            "flts_training_retries_exhausted_total", "Work given up after all tries"
        )
        self.datasets_preprocessed = counter("flts_datasets_preprocessed_total", "Data sets preprocessed", "outcome")
        self.preprocess_duration = histogram(
            "flts_preprocess_duration_seconds", "Time to preprocess one data set", buckets=TRAINING_BUCKETS
        )
        self.promotions = counter("flts_promotions_total", "Decisions on pipeline runs", "decision")
        self.evaluation_duration = histogram(
            "flts_evaluation_duration_seconds", "Time to score and decide one run", buckets=TRAINING_BUCKETS
        )

        self.model_load = counter("flts_model_load_total", "Champions loaded for serving", "outcome")
        self.predict_latency = histogram(
            "flts_predict_latency_seconds", "Time from request to answer", "model_type", buckets=LATENCY_BUCKETS
        )
        self.predictions = counter("flts_predictions_total", "Answered requests", "outcome")
        self.champion_age = gauge("flts_champion_age_seconds", "Age of the oldest champion served")
        self.champion_coverage = gauge(
            "flts_champion_coverage", "Least interval coverage among the champions, on test rows"
        )
        self.champions = gauge("flts_champions", "Champions known to this replica")
        self.forecast_log_dropped = counter(
            "flts_forecast_log_dropped_total", "Forecast log entries dropped: full queue"
        )

        self.http_requests = counter("flts_http_requests_total", "Requests to the API", "route", "outcome")
        self.uploads = counter("flts_uploads_total", "Uploaded data sets", "outcome")

        self.mlflow_breaker_open = gauge("flts_mlflow_breaker_open", "1 while calls to MLflow are held back")
        self.mlflow_calls = counter("flts_mlflow_calls_total", "Calls to MLflow", "outcome")
        self.spool_documents = gauge("flts_spool_documents", "Documents that MLflow has not taken yet")
        self.store_conflicts = counter(
            "flts_store_conflicts_total", "Keys that existed with other bytes; the stored won"
        )
        self.janitor_removed = counter("flts_janitor_removed_total", "Objects removed by the janitor")

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


def begin_at_zero(metric: MetricWrapperBase, *labels: Iterable[str]) -> None:
    """Create the series of every combination of label values, with the value 0.

    If a series began with its first event, it would have no earlier value. A rate, and an alert on that rate, would
    miss the event.
    """
    for values in itertools.product(*labels):
        metric.labels(*values)


_lock = threading.Lock()
_default: Metrics | None = None


def default_metrics() -> Metrics:
    """Return this process's metrics, including memory, CPU and garbage collections."""
    global _default  # noqa: PLW0603 - a process has one registry, which Prometheus scrapes
    with _lock:
        if _default is None:
            registry = CollectorRegistry()
            ProcessCollector(registry=registry)
            PlatformCollector(registry=registry)
            GCCollector(registry=registry)
            _default = Metrics(registry)
        return _default


@dataclass(frozen=True, slots=True)
class Observation:
    """One call on a metric in a child process. The parent repeats the call on its own metric."""

    metric: str
    """Name of the attribute in `Metrics`."""
    labels: tuple[str, ...]
    labels_by_name: tuple[tuple[str, str], ...]
    call: str
    """inc, dec, set or observe."""
    value: float


def send_metrics_to(send: Callable[[Observation], None]) -> Metrics:
    """Replace this process's metrics by senders that pass each call to the parent, which answers /metrics.

    The parent repeats the calls and merges no samples. Only calls that a killed child has not yet sent are lost.
    """
    metrics = Metrics(CollectorRegistry())
    for name, metric in vars(metrics).items():
        if isinstance(metric, MetricWrapperBase):
            setattr(metrics, name, cast("Any", _Sender(name, send)))
    global _default  # noqa: PLW0603 - a child process replaces only its own registry
    with _lock:
        _default = metrics
    return metrics


def repeat(metrics: Metrics, observation: Observation) -> None:
    """Repeat a child's call on this process's metrics."""
    metric = getattr(metrics, observation.metric)
    if observation.labels or observation.labels_by_name:
        metric = metric.labels(*observation.labels, **dict(observation.labels_by_name))
    getattr(metric, observation.call)(observation.value)


class _Sender:
    """A metric in a child process, whose calls are sent to the parent."""

    def __init__(
        self,
        name: str,
        send: Callable[[Observation], None],
        labels: tuple[str, ...] = (),
        labels_by_name: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self._name = name
        self._send = send
        self._labels = labels
        self._labels_by_name = labels_by_name

    def labels(self, *values: object, **values_by_name: object) -> _Sender:
        named = tuple((name, str(value)) for name, value in values_by_name.items())
        return _Sender(self._name, self._send, tuple(map(str, values)), named)

    def inc(self, amount: float = 1) -> None:
        self._call("inc", amount)

    def dec(self, amount: float = 1) -> None:
        self._call("dec", amount)

    def set(self, value: float) -> None:
        self._call("set", value)

    def observe(self, amount: float) -> None:
        self._call("observe", amount)

    @contextmanager
    def time(self) -> Iterator[None]:
        """Observe the seconds spent inside the ``with`` block; for a histogram only."""
        import time  # noqa: PLC0415 - only this method needs it

        started = time.perf_counter()
        try:
            yield
        finally:
            self._call("observe", time.perf_counter() - started)

    def _call(self, call: str, value: float) -> None:
        self._send(Observation(self._name, self._labels, self._labels_by_name, call, float(value)))
