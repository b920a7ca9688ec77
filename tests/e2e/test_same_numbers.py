"""The same upload is the same configuration and the same Prophet, wherever the pipeline runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.pipeline import Pipeline
from tests.reports import report
from tests.stack import SMALL, RunningStack, running_stack

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

METRICS = ("score", "rmse", "mae", "mse", "skill")
ROUNDING = 1e-6
"""Relative: libraries may add in another order on another machine."""


def test_a_target_computes_what_the_embedded_mode_computes(
    stack: Pipeline, sample: tuple[Path, Path], tmp_path: Path
) -> None:
    if isinstance(stack, RunningStack):
        pytest.skip("this is the mode that others are compared with")

    here = judged(stack, sample)
    with running_stack(tmp_path / "home", **SMALL) as embedded:
        there = judged(embedded, sample)

    report("same-numbers", [{"at": "target", **numbers(here)}, {"at": "embedded", **numbers(there)}])
    assert here["config_hash"] == there["config_hash"]
    assert numbers(here) == pytest.approx(numbers(there), rel=ROUNDING)
    table = [prophet(run)["table"] for run in (here, there)]
    for mine, theirs in zip(*table, strict=True):
        assert mine == pytest.approx(theirs, rel=ROUNDING), "of a target at a horizon"


def judged(stack: Pipeline, sample: tuple[Path, Path]) -> dict[str, Any]:
    return stack.wait_decided(stack.upload("same-numbers", *sample), timeout=300)


def prophet(run: dict[str, Any]) -> dict[str, Any]:
    [found] = [row for row in run["scoreboard"]["candidates"] if row["model_type"] == "PROPHET"]
    return dict(found)


def numbers(run: dict[str, Any]) -> dict[str, float]:
    return {name: prophet(run)[name] for name in METRICS}
