"""Checks a service's backends at its start, by real requests with time limits. Errors name the address and the step."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flts.errors import BackendAwayError, FltsError, RejectedError
from flts.messaging.kafka import check_broker, check_large_request, ensure_topics
from flts.observability.logs import get_logger
from flts.observability.metrics import Metrics
from flts.runtime.adapters import Adapters
from flts.settings import BackendSettings, KafkaSettings, Settings, StoreSettings, TrackingSettings

log = get_logger(__name__)

DEFAULT_CHECK_SECONDS = 30.0
RETRY_SECONDS = 0.5
ANSWER_SECONDS = 5.0
LEAST_SECONDS = 2.0
"""Seconds; least timeout of a step, so that a step that begins near the end of the check can still succeed."""

Check = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Problem:
    """A backend that failed its check."""

    reason: str
    refused: bool
    """Whether the backend answers and cannot be used, so that waiting does not help."""


def backend_checks(
    settings: Settings, adapters: Adapters, client_id: str, groups: Iterable[str], asked: threading.Event
) -> dict[str, Check]:
    """Return a check for each backend that these settings name; each check has a time limit."""
    checks: dict[str, Check] = {}
    if isinstance(settings, StoreSettings) and adapters.has_store:
        checks["store"] = lambda: _check_store(settings, adapters)
    if isinstance(settings, KafkaSettings):
        checks["kafka"] = lambda: _check_kafka(settings, client_id, tuple(groups), asked)
    return checks


def record_checks(settings: Settings, adapters: Adapters, asked: threading.Event) -> dict[str, Check]:
    """Return the check of MLflow, for which no service waits."""
    if adapters.tracking and isinstance(settings, TrackingSettings):
        return {"mlflow": lambda: _check_mlflow(settings, asked)}
    return {}


def run_checks(checks: dict[str, Check], metrics: Metrics) -> list[Problem]:
    """Run all checks in parallel; return the problem of each backend that failed."""
    problems: dict[str, Problem] = {}

    def make(name: str, check: Check) -> None:
        try:
            check()
        except FltsError as error:
            problems[name] = Problem(error.message, isinstance(error, RejectedError))
        except Exception as error:  # after an unexpected error the backend must not count as reachable
            log.exception("backend_check_error", backend=name)
            problems[name] = Problem(f"{name}: {type(error).__name__}: {error}", refused=False)
        metrics.backend_up.labels(backend=name).set(name not in problems)

    threads = [
        threading.Thread(target=make, args=item, name=f"check-{item[0]}", daemon=True) for item in checks.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [problems[name] for name in checks if name in problems]


def _check_store(settings: StoreSettings, adapters: Adapters) -> None:
    from flts.storage.checks import check_store  # noqa: PLC0415 - the inference server has no store

    started = time.monotonic()
    check_store(adapters.store, settings)
    log.info("backend_answers", backend="store", duration_seconds=round(time.monotonic() - started, 3))


def _check_kafka(settings: KafkaSettings, client_id: str, groups: tuple[str, ...], asked: threading.Event) -> None:
    seconds = check_seconds(settings)
    started = time.monotonic()
    step = "metadata request"
    while True:
        left = seconds - (time.monotonic() - started)
        try:
            step = "metadata request"
            check_broker(settings, client_id, timeout_seconds=min(ANSWER_SECONDS, max(left, LEAST_SECONDS)))
            step = "exchange of 96 KiB"
            left = seconds - (time.monotonic() - started)
            check_large_request(settings, client_id, timeout_seconds=min(ANSWER_SECONDS, max(left, LEAST_SECONDS)))
            step = "check of topics"
            ensure_topics(settings, client_id, groups)
        except BackendAwayError as error:
            if time.monotonic() - started + RETRY_SECONDS >= seconds or asked.wait(RETRY_SECONDS):
                address = settings.kafka_bootstrap_servers
                msg = f"kafka {address}: '{step}' did not succeed within {seconds:g} s: {error.message}"
                raise BackendAwayError(msg, code=error.code) from error
        else:
            log.info("backend_answers", backend="kafka", duration_seconds=round(time.monotonic() - started, 3))
            return


def _check_mlflow(settings: TrackingSettings, asked: threading.Event) -> None:
    from flts.tracking.checks import check_mlflow  # noqa: PLC0415 - only for services that use MLflow

    started = time.monotonic()
    check_mlflow(settings, seconds=check_seconds(settings), stop=asked)
    log.info("backend_answers", backend="mlflow", duration_seconds=round(time.monotonic() - started, 3))


def check_seconds(settings: Settings) -> float:
    """Return the time limit of the checks at start, in seconds."""
    return settings.backend_check_seconds if isinstance(settings, BackendSettings) else DEFAULT_CHECK_SECONDS
