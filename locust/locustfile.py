"""A load test of a running FLTS: users, their number over time, and thresholds; a missed threshold exits with 1."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import shapes
import target
from journeys.forecasts import ForecastUser
from journeys.models import ModelsUser
from journeys.uploads import UploadUser
from locust import events
from locust.env import Environment
from locust.runners import WorkerRunner
from locust.stats import StatsEntry
from shapes import LoadOverTime
from thresholds import Entry, Evidence, Limits, reasons_to_fail
from watch import GATEWAY, INFERENCE, MetricsWatch

__all__ = ["ForecastUser", "LoadOverTime", "ModelsUser", "UploadUser"]

REQUIRED = ("POST /predict", "GET /models", "POST /datasets/{identifier}", "upload to decision")

log = logging.getLogger("flts.load")


class Run:
    """The state of a load test in the master, or in the only process."""

    def __init__(self) -> None:
        self.watch: MetricsWatch | None = None
        self.began = 0.0
        self.by_worker: dict[str, tuple[int, list[int]]] = {}
        self.judged = False


run = Run()


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    """Add the project's options to Locust's."""
    target.add_options(parser)
    shapes.add_options(parser)


@events.init.add_listener
def choose_hosts(environment: Environment, **_: Any) -> None:
    """Set the inference service as the host of all users; requests to the gateway contain its complete address."""
    for user in (ForecastUser, ModelsUser, UploadUser):
        user.host = target.options_of(environment).inference.rstrip("/")


@events.test_start.add_listener
def begin(environment: Environment, **_: Any) -> None:
    """Reset the counts and begin to read the services' metrics."""
    ForecastUser.series, ForecastUser.answers = None, 0
    ForecastUser.distinct.clear()
    if isinstance(environment.runner, WorkerRunner):
        return
    options = target.options_of(environment)
    run.began, run.judged = time.monotonic(), False
    run.by_worker.clear()
    run.watch = MetricsWatch(
        [
            (f"{options.inference.rstrip('/')}/metrics", INFERENCE),
            (f"{options.gateway.rstrip('/')}/metrics", GATEWAY),
        ]
    )
    run.watch.start()


@events.report_to_master.add_listener
def send_answers(data: dict[str, Any], **_: Any) -> None:
    """Send the counts of forecasts to the master."""
    data["answers"], data["distinct"] = ForecastUser.answers, list(ForecastUser.distinct)


@events.worker_report.add_listener
def take_answers(client_id: str, data: dict[str, Any], **_: Any) -> None:
    """Keep a worker's latest counts of forecasts."""
    run.by_worker[client_id] = (data["answers"], data["distinct"])


@events.test_stop.add_listener
def judge(environment: Environment, **_: Any) -> None:
    """Compare the figures with the thresholds, write the report, set the exit code."""
    if isinstance(environment.runner, WorkerRunner) or run.watch is None:
        return
    options = target.options_of(environment)
    metrics = run.watch.stop()
    counted = run.by_worker.values() or [(ForecastUser.answers, list(ForecastUser.distinct))]
    errors = sorted(environment.stats.errors.values(), key=lambda error: -error.occurrences)
    evidence = Evidence(
        entries=[_entry(entry) for entry in environment.stats.entries.values()],
        errors=[f"{error.name}: {error.error}" for error in errors],
        metrics=metrics,
        answers=sum(answers for answers, _ in counted),
        distinct_answers=len({answer for _, distinct in counted for answer in distinct}),
    )
    limits = Limits(options.max_failures, options.max_median_ms, options.max_p95_ms, required=REQUIRED)
    reasons = reasons_to_fail(evidence, limits)
    _report(options, evidence, limits, reasons)
    run.judged = True
    environment.process_exit_code = 1 if reasons else 0


@events.quitting.add_listener
def never_judged(environment: Environment, **_: Any) -> None:
    """Fail a test that did not run to its end."""
    if not isinstance(environment.runner, WorkerRunner) and not run.judged:
        log.error("load failed: the test never ran to its end")
        environment.process_exit_code = 1


def _entry(entry: StatsEntry) -> Entry:
    return Entry(
        name=entry.name,
        requests=entry.num_requests,
        failures=entry.num_failures,
        median_ms=float(entry.median_response_time),
        p95_ms=float(entry.get_response_time_percentile(0.95)),
        min_ms=float(entry.min_response_time or 0),
        max_ms=float(entry.max_response_time),
        per_second=round(entry.total_rps, 2),
    )


def _report(options: Any, evidence: Evidence, limits: Limits, reasons: list[str]) -> None:
    summary = {
        "passed": not reasons,
        "reasons": reasons,
        "seconds": round(time.monotonic() - run.began, 1),
        "users": options.num_users,
        "shape": options.shape,
        "gateway": options.gateway,
        "inference": options.inference,
        "entries": [vars(entry) for entry in evidence.entries],
        "errors": list(evidence.errors)[:20],
        "metrics": dict(evidence.metrics),
        "answers": evidence.answers,
        "limits": vars(limits),
    }
    if options.report:
        folder = Path(options.report)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "summary.json").write_text(json.dumps(summary, indent=2))
    for reason in reasons:
        log.error("load failed: %s", reason)
    if not reasons:
        log.info("load passed: %d requests, no reason against it", sum(entry.requests for entry in evidence.entries))
