"""Check by the cluster's events, not by a count of replicas, that the autoscaler scaled inference in a load test.

Standard library only.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self

from tools.release import Release, ReleaseError

NAME = "inference"
PERIOD_SECONDS = 5.0
FEW = 5
"""Samples: up to this number may be equal by chance; if more are equal, the CPU was not measured."""


@dataclass(frozen=True)
class Look:
    """One sample of the autoscaler's status."""

    seconds: float
    replicas: int
    percent: int | None
    """CPU used, in percent of the request; None while the autoscaler has no value."""


@dataclass(frozen=True)
class Rescale:
    """An event of the cluster: the autoscaler has changed the number of replicas."""

    time: str
    size: int
    message: str


@dataclass
class Evidence:
    """The samples and events of one load test."""

    looks: list[Look] = field(default_factory=list)
    rescales: list[Rescale] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the evidence as JSON values."""
        return asdict(self)


def reasons_to_fail(evidence: Evidence, least: int, back_to: int | None = None) -> list[str]:
    """Return the reasons why a load test did not show the required scaling; an empty list if it did.

    Parameters
    ----------
    least : int
        Number of replicas that the autoscaler must have reached.
    back_to : int, optional
        Number of replicas that it must have returned to afterwards.
    """
    return [*_metrics(evidence.looks), *_events(evidence.rescales, least, back_to)]


def _metrics(looks: Sequence[Look]) -> list[str]:
    seen = [look.percent for look in looks if look.percent is not None]
    if not seen:
        return [f"no evidence: the autoscaler saw no CPU in {len(looks)} looks; is there a metrics-server?"]
    if len(seen) > FEW and len(set(seen)) == 1:
        return [f"no evidence: the CPU was {seen[0]} % at each of {len(seen)} looks"]
    return []


def _events(rescales: Sequence[Rescale], least: int, back_to: int | None) -> list[str]:
    if not rescales:
        return ["no evidence: the cluster has no event SuccessfulRescale of this run"]
    # Only an event whose message mentions a target is about load. The others are about the autoscaler's own limits.
    sizes = [rescale.size for rescale in rescales if "target" in rescale.message]
    if not sizes:
        return [f"no evidence: none of {len(rescales)} events is about the CPU"]
    if max(sizes) < least:
        return [f"the autoscaler went to {max(sizes)} replicas, not to {least}"]
    if back_to is not None and sizes[-1] > back_to:
        return [f"the autoscaler came back to {sizes[-1]} replicas, not to {back_to}"]
    return []


class ScalingWatch:
    """Samples the autoscaler inside the ``with`` block, and reads the events of that time at its end."""

    def __init__(self, release: Release) -> None:
        self._release = release
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="scaling-watch")
        self.evidence = Evidence()

    def __enter__(self) -> Self:
        self._before = {_identity(event) for event in self._events()}
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self.read_events()

    def read_events(self) -> None:
        """Read the rescale events since the block began, oldest first."""
        new = [event for event in self._events() if _identity(event) not in self._before]
        self.evidence.rescales = sorted(map(_rescale, new), key=lambda rescale: rescale.time)

    def _watch(self) -> None:
        while not self._ended.wait(PERIOD_SECONDS):
            try:
                status = self._release.get("hpa", NAME)["status"]
            except ReleaseError:
                continue  # kubectl failed: this sample is missing
            look = Look(round(time.monotonic() - self._began, 1), status.get("currentReplicas", 0), _percent(status))
            self.evidence.looks.append(look)

    def _events(self) -> list[dict[str, Any]]:
        about = f"involvedObject.kind=HorizontalPodAutoscaler,involvedObject.name={NAME},reason=SuccessfulRescale"
        return list(self._release.get("events", "--field-selector", about)["items"])


def _identity(event: dict[str, Any]) -> tuple[str, int]:
    # Kubernetes reports a repeated event by raising the first event's count, so the count is part of the identity.
    return event["metadata"]["uid"], event.get("count") or 1


def _rescale(event: dict[str, Any]) -> Rescale:
    found = re.search(r"New size: (\d+)", event["message"])
    when = event.get("lastTimestamp") or event.get("eventTime") or ""
    return Rescale(when, int(found[1]) if found else 0, event["message"])


def _percent(status: dict[str, Any]) -> int | None:
    for metric in status.get("currentMetrics") or []:
        current = metric.get("resource", {}).get("current", {})
        if "averageUtilization" in current:
            return int(current["averageUtilization"])
    return None
