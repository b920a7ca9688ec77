"""The same upload has the same config_hash and the same Prophet scores on each target."""

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
"""Relative tolerance: libraries may add numbers in another order on another machine."""


def test_a_target_computes_what_the_embedded_mode_computes(
    stack: Pipeline, swinging: tuple[Path, Path], tmp_path: Path
) -> None:
    if isinstance(stack, RunningStack):
        pytest.skip("this is the mode that others are compared with")

    here = judged(stack, swinging)
    with running_stack(tmp_path / "home", **SMALL) as embedded:
        there = judged(embedded, swinging)

    report(
        "same-numbers",
        [
            {"at": at, "config_hash": run["config_hash"], **{name: repr(each) for name, each in numbers(run).items()}}
            for at, run in (("target", here), ("embedded", there))
        ],
    )
    assert here["config_hash"] == there["config_hash"]
    assert numbers(here) == pytest.approx(numbers(there), rel=ROUNDING)
    mine, theirs = (prophet(run)["table"] for run in (here, there))
    assert len(mine) > 1
    for row, other in zip(mine, theirs, strict=True):
        assert row.keys() == other.keys()
        assert all(same(row[name], other[name]) for name in row), (row, other)


def same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, rel=ROUNDING)
    return one == other


def judged(stack: Pipeline, swinging: tuple[Path, Path]) -> dict[str, Any]:
    return stack.wait_decided(stack.upload("same-numbers", *swinging), timeout=300)


def prophet(run: dict[str, Any]) -> dict[str, Any]:
    [found] = [row for row in run["scoreboard"]["candidates"] if row["model_type"] == "PROPHET"]
    return dict(found)


def numbers(run: dict[str, Any]) -> dict[str, float]:
    return {name: prophet(run)[name] for name in METRICS}
