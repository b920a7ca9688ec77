"""Eval waits for THETA in runs on short series only, scores its bundle with its own recipe and promotes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flts.contracts.events import ModelSelected
from flts.forecasting.grid import FixedGrid
from flts.forecasting.series import FloatArray
from flts.trainers import SHORT_ROWS
from tests.chance_folds import ROWS, monthly
from tests.direct_models import made_series
from tests.early_models import baselines, linear, theta
from tests.evaluated_runs import IDENTIFIER, Installation, Run, announced

HORIZON = 12


@pytest.fixture
def flts(tmp_path: Path) -> Installation:
    return Installation(tmp_path, expected_model_types=("LINEAR", "THETA"), output_seq_len=HORIZON)


def decided(flts: Installation, *events: Any) -> ModelSelected:
    """Send events and return the decision; the events after it publish it again."""
    return next(told for told in flts.send(*events) if isinstance(told, ModelSelected) and told.stage is None)


def expected(flts: Installation, run: Run) -> list[str]:
    record = flts.run_store.evaluations.expected(IDENTIFIER, run.id)
    assert record is not None
    return list(record["model_types"])


def growing() -> FloatArray:
    """Return monthly values with a trend, factors of the months and a level that wanders."""
    rng, at = np.random.default_rng(2), np.arange(ROWS)
    factors = np.exp(rng.normal(0, 0.2, 12))[at % 12]
    wander = 0.01 * rng.normal(size=ROWS).cumsum() + 0.01 * rng.normal(size=ROWS)
    values: FloatArray = (100 + 0.8 * at) * factors * np.exp(wander)
    return values


def test_theta_is_promoted_on_a_short_series_whose_folds_add_pieces(flts: Installation) -> None:
    run = flts.run(monthly(growing()), test_rows=27)
    event = theta(flts, run, HORIZON)

    selected = decided(flts, run.data, linear(flts, run, HORIZON), event)

    rows = {row["model_type"]: row for row in flts.scoreboard(selected)["candidates"]}
    assert (selected.decision, selected.model_type, selected.bundle) == ("promoted", "THETA", event.bundle)
    assert rows["THETA"]["score"] < rows["LINEAR"]["score"] < 1
    assert rows["THETA"]["pieces"] == 5


def test_a_run_on_many_rows_does_not_wait_for_theta_and_a_run_on_few_does(flts: Installation) -> None:
    many, few = (
        flts.run(made_series(FixedGrid(3_600), rows, 24, 475_000, 1)) for rows in (SHORT_ROWS + 200, SHORT_ROWS)
    )
    assert few.data.rows < SHORT_ROWS <= many.data.rows

    selected = decided(flts, many.data, linear(flts, many, HORIZON))
    waiting = flts.send(few.data, linear(flts, few, HORIZON))

    assert [row["model_type"] for row in flts.scoreboard(selected)["candidates"]] == ["LINEAR"]
    assert (expected(flts, many), expected(flts, few)) == (["LINEAR"], ["LINEAR", "THETA"])
    assert waiting == []


def test_a_trainer_of_an_earlier_release_does_not_hold_up_a_short_run(flts: Installation) -> None:
    run = flts.run(monthly(growing()), test_rows=27)

    selected = decided(flts, run.data, linear(flts, run, HORIZON), *baselines(flts, run, HORIZON))

    rows = {row["model_type"]: row for row in flts.scoreboard(selected)["candidates"]}
    assert rows["THETA"]["status"] == "missing"
    assert "the trainer of THETA sent PERSISTENCE" in str(rows["THETA"]["reasons"])


def test_a_series_that_theta_cannot_be_fitted_on_is_decided_without_it(flts: Installation) -> None:
    run = flts.run(monthly(growing()), test_rows=27)
    failed = announced(run, "THETA", error="THETA is fitted on at least 16 rows, there are 12")

    selected = decided(flts, run.data, failed, linear(flts, run, HORIZON))

    assert selected.decision == "promoted"
    rows = {row["model_type"]: row for row in flts.scoreboard(selected)["candidates"]}
    assert (rows["THETA"]["status"], rows["THETA"]["reasons"][0]["code"]) == ("failed", "training_failed")
