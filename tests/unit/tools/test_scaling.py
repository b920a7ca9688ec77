"""A load test counts the autoscaler as working only if the cluster's events show it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.eventually import eventually
from tools.release import Release
from tools.scaling import Evidence, Look, Rescale, ScalingWatch, reasons_to_fail

LOOKS = [Look(5.0 * number, 2, percent) for number, percent in enumerate([4, 90, 210, 140, 60, 55, 50])]
OUT = [
    Rescale("2026-01-01T00:00:30Z", 4, "New size: 4; reason: cpu resource utilization above target"),
    Rescale("2026-01-01T00:00:45Z", 6, "New size: 6; reason: cpu resource utilization above target"),
]
BACK = [
    Rescale(f"2026-01-01T00:0{7 - size}:00Z", size, f"New size: {size}; reason: All metrics below target")
    for size in (5, 4, 3, 2)
]
GOOD = Evidence(LOOKS, [*OUT, *BACK])


def test_events_of_scaling_out_and_back_are_evidence() -> None:
    assert reasons_to_fail(GOOD, least=4) == []
    assert reasons_to_fail(GOOD, least=4, back_to=2) == []


def test_replicas_without_events_are_none() -> None:
    [reason] = reasons_to_fail(Evidence([replace(look, replicas=6) for look in LOOKS], []), least=4)

    assert "no event SuccessfulRescale" in reason


@pytest.mark.parametrize("percent", [None, 0, 70])
def test_a_metric_that_is_missing_or_constant_is_none(percent: int | None) -> None:
    looks = [replace(look, percent=percent) for look in LOOKS]

    [reason] = reasons_to_fail(replace(GOOD, looks=looks), least=4)

    assert reason.startswith("no evidence")


def test_too_few_replicas_are_told() -> None:
    assert reasons_to_fail(GOOD, least=7) == ["the autoscaler went to 6 replicas, not to 7"]


def test_events_of_changed_limits_are_none() -> None:
    limits = replace(OUT[0], message="New size: 4; reason: Current number of replicas below Spec.MinReplicas")

    [reason] = reasons_to_fail(Evidence(LOOKS, [limits]), least=4)

    assert reason.startswith("no evidence")


def test_replicas_that_do_not_go_again_are_told() -> None:
    evidence = replace(GOOD, rescales=[*OUT, *BACK[:-1]])

    assert reasons_to_fail(evidence, least=4) == []
    assert reasons_to_fail(evidence, least=4, back_to=2) == ["the autoscaler came back to 3 replicas, not to 2"]


class Told(Release):
    """A cluster with an event of an earlier scaling, which it repeats during the run, and one new event."""

    def __init__(self) -> None:
        super().__init__("somewhere")
        self.events = [self._event("a", 4, count=1)]

    def get(self, *what: str) -> dict[str, Any]:
        if what[0] == "events":
            return {"items": self.events}
        used = {"resource": {"current": {"averageUtilization": 88}}}
        return {"status": {"currentReplicas": 2, "currentMetrics": [used]}}

    def scale(self) -> None:
        self.events = [self._event("a", 4, count=2), self._event("b", 6, count=1)]

    def _event(self, uid: str, size: int, *, count: int) -> dict[str, Any]:
        when = f"2026-01-01T00:0{count}:0{size}Z"
        return {
            "metadata": {"uid": uid},
            "count": count,
            "lastTimestamp": when,
            "message": f"New size: {size}; reason: above target",
        }


def test_only_events_of_the_run_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.scaling.PERIOD_SECONDS", 0.01)
    release = Told()

    with ScalingWatch(release) as quiet:
        pass
    with ScalingWatch(release) as watch:
        release.scale()
        eventually(lambda: watch.evidence.looks, "a look at the autoscaler")

    assert quiet.evidence.rescales == []
    assert [rescale.size for rescale in watch.evidence.rescales] == [6, 4]
    assert {look.percent for look in watch.evidence.looks} == {88}
