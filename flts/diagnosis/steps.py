"""The steps that diagnose one backend. Each step has a time limit, and each failure has exactly one remedy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from flts.errors import FltsError
from flts.observability.logs import without_userinfo

STEP_SECONDS = 4.0
"""Seconds of a step. A server that accepts a connection and never answers fails the step after this time."""
WRITE_SECONDS = 15.0
Status = Literal["ok", "failed", "skipped"]
LONGEST_DETAIL = 400


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a diagnosis.

    ``act`` returns a detail for the user, or raises. ``remedy`` returns the remedy for the raised exception.
    """

    name: str
    act: Callable[[], str]
    remedy: Callable[[Exception], str]
    seconds: float = STEP_SECONDS


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a step."""

    backend: str
    address: str
    step: str
    status: Status
    milliseconds: float | None
    detail: str
    remedy: str | None = None

    def view(self) -> dict[str, Any]:
        """Return the finding as a JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Backend:
    """A backend and the steps of its diagnosis, in order."""

    name: str
    address: str
    steps: Sequence[Step] = ()
    why_not: str | None = None
    """Reason why the backend is not checked, for example because its address is not set; None if it is checked."""


class StepTimeoutError(FltsError):
    """A step exceeded its time limit."""

    code = "timeout"


def examine(backends: Sequence[Backend]) -> list[Finding]:
    """Diagnose all backends in parallel; return the findings in the order of the backends."""
    found: dict[str, list[Finding]] = {}
    threads = [
        threading.Thread(target=lambda one=backend: found.__setitem__(one.name, look_at(one)), daemon=True)
        for backend in backends
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [finding for backend in backends for finding in found.get(backend.name, [])]


def look_at(backend: Backend) -> list[Finding]:
    """Run a backend's steps until a step fails; the remaining steps are reported as skipped."""
    address = without_userinfo(backend.address)
    if backend.why_not is not None:
        return [Finding(backend.name, address, "setting", "skipped", None, backend.why_not)]
    findings: list[Finding] = []
    failed: str | None = None
    for step in backend.steps:
        if failed is not None:
            findings.append(Finding(backend.name, address, step.name, "skipped", None, f"after {failed}"))
            continue
        began = time.perf_counter()
        try:
            detail, status, remedy = _bounded(step), "ok", None
        except Exception as error:  # noqa: BLE001 - any error is the finding of this step
            failed = step.name
            detail, status, remedy = _reason(error), "failed", step.remedy(error)
        taken = round((time.perf_counter() - began) * 1000, 1)
        detail = without_userinfo(detail)[:LONGEST_DETAIL]
        findings.append(Finding(backend.name, address, step.name, status, taken, detail, remedy))  # type: ignore[arg-type]
    return findings


def _bounded(step: Step) -> str:
    """Run the step in a separate thread; after the time limit the thread is abandoned, because it cannot be stopped."""
    outcome: list[str | Exception] = []

    def act() -> None:
        try:
            outcome.append(step.act())
        except Exception as error:  # noqa: BLE001 - the waiting thread raises it
            outcome.append(error)

    thread = threading.Thread(target=act, name=f"doctor-{step.name}", daemon=True)
    thread.start()
    thread.join(step.seconds)
    if not outcome:
        msg = f"no answer within {step.seconds:g} s"
        raise StepTimeoutError(msg)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__
