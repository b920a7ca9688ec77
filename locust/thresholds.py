"""The thresholds that a load test must meet. A missed threshold is reported as a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

FEW = 10
"""Measurements; no more than this may be equal by chance."""


@dataclass(frozen=True)
class Entry:
    """The measurements of one kind of request, in milliseconds."""

    name: str
    requests: int
    failures: int
    median_ms: float
    p95_ms: float
    min_ms: float
    max_ms: float
    per_second: float = 0.0


@dataclass(frozen=True)
class Limits:
    """The limits that a load test must keep."""

    max_failures: int = 0
    max_median_ms: float = 50.0
    max_p95_ms: float = 250.0
    timed: tuple[str, ...] = ("POST /predict",)
    """Requests whose times are limited."""
    required: tuple[str, ...] = ()
    """Requests of which there must have been at least one."""


@dataclass(frozen=True)
class Evidence:
    """The figures of a load test."""

    entries: Sequence[Entry]
    errors: Sequence[str] = ()
    """Error messages, most frequent first."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """Growth of each of the services' metrics; None for a metric that was never read."""
    answers: int = 0
    """Number of checked forecasts."""
    distinct_answers: int = 0


def reasons_to_fail(evidence: Evidence, limits: Limits) -> list[str]:
    """Return the reasons why a load test fails; an empty list if it passes."""
    found = [*_traffic(evidence, limits), *_failures(evidence, limits)]
    entries = {entry.name: entry for entry in evidence.entries}
    for name in limits.timed:
        entry = entries.get(name)
        if entry is not None and entry.requests:
            found += _times(entry, limits)
    return [*found, *_metrics(evidence), *_answers(evidence)]


def _traffic(evidence: Evidence, limits: Limits) -> list[str]:
    sent = {entry.name: entry.requests for entry in evidence.entries}
    if not sum(sent.values()):
        return ["no traffic: not one request was made"]
    return [f"no traffic: there was no {name}" for name in limits.required if not sent.get(name)]


def _failures(evidence: Evidence, limits: Limits) -> list[str]:
    failed = sum(entry.failures for entry in evidence.entries)
    if failed <= limits.max_failures:
        return []
    requests = sum(entry.requests for entry in evidence.entries)
    first = f"; most often {evidence.errors[0]}" if evidence.errors else ""
    return [f"{failed} of {requests} requests failed, {limits.max_failures} may{first}"]


def _times(entry: Entry, limits: Limits) -> list[str]:
    if entry.p95_ms <= 0 or entry.max_ms <= 0:
        return [f"no evidence: the times of {entry.name} are 0"]
    if entry.requests > FEW and entry.min_ms == entry.max_ms:
        return [f"no evidence: all {entry.requests} times of {entry.name} are {entry.max_ms:g} ms"]
    found = []
    if entry.median_ms > limits.max_median_ms:
        found.append(f"median of {entry.name} is {entry.median_ms:g} ms, above {limits.max_median_ms:g}")
    if entry.p95_ms > limits.max_p95_ms:
        found.append(f"p95 of {entry.name} is {entry.p95_ms:g} ms, above {limits.max_p95_ms:g}")
    return found


def _metrics(evidence: Evidence) -> list[str]:
    if not evidence.metrics:
        return ["no evidence: no metric of the services was read"]
    missing = [f"metric missing: {name}" for name, growth in evidence.metrics.items() if growth is None]
    return missing + [f"metric constant: {name}" for name, growth in evidence.metrics.items() if growth == 0]


def _answers(evidence: Evidence) -> list[str]:
    if evidence.answers > FEW and evidence.distinct_answers <= 1:
        return [f"answers constant: {evidence.answers} forecasts of different rows are all the same"]
    return []
