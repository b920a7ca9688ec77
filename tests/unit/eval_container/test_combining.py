"""Eval combines candidates that forecast the same steps, and scores the combination as a further candidate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flts.bundle.load import fetch_bundle
from flts.bundle.model import BundleModel
from flts.bundle.write import store_bundle
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import ModelSelected, ModelTraining
from flts.forecasting.grid import FixedGrid
from tests.direct_models import made_series
from tests.early_models import linear
from tests.evaluated_runs import Installation, Run, announced

HORIZON = 12
SERIES = made_series(FixedGrid(3_600), 800, 24, 475_000, 2)


@pytest.fixture
def flts(tmp_path: Path) -> Installation:
    return Installation(tmp_path, expected_model_types=("GRU", "LINEAR"), output_seq_len=HORIZON)


def network(flts: Installation, run: Run, of: ModelTraining, *, fitted_rows: int) -> ModelTraining:
    """Return a network's event with LINEAR's model, which was fitted on the first rows only, as it says."""
    assert of.bundle is not None
    bundle, model_bytes = fetch_bundle(flts.store, of.bundle)
    until = int(SERIES.times[fitted_rows - 1])
    bundle = replace(bundle, model_type="GRU", train_hash="9" * 64, fitted_until=until)
    claim = store_bundle(flts.store, flts.settings.bucket_model_bundles, bundle, model_bytes)
    return announced(run, "GRU", bundle=claim)


def scores(flts: Installation, *events: Any) -> dict[str, dict[str, Any]]:
    [selected] = [one for one in flts.send(*events) if isinstance(one, ModelSelected)]
    return {row["model_type"]: row for row in flts.scoreboard(selected)["candidates"]}


def test_candidates_that_forecast_alike_are_combined(flts: Installation) -> None:
    run = flts.run(SERIES)
    event = linear(flts, run, HORIZON)

    rows = scores(flts, run.data, event, network(flts, run, event, fitted_rows=500))

    assert list(rows) == ["GRU", "LINEAR", "COMBINATION"]
    members = rows["COMBINATION"]["members"]
    assert list(members) == ["GRU", "LINEAR"]
    assert sum(members.values()) == pytest.approx(1, abs=1e-3)
    assert rows["COMBINATION"]["score"] == pytest.approx(rows["LINEAR"]["score"], rel=1e-4)
    combined, own = (
        BundleModel(*fetch_bundle(flts.store, ClaimCheck.model_validate(rows[name]["bundle"]))).bundle
        for name in ("COMBINATION", "LINEAR")
    )
    assert combined.intervals is not None
    assert own.intervals is not None
    assert combined.intervals.steps == own.intervals.steps  # its errors are LINEAR's, and so are its intervals
    assert combined.intervals.values == pytest.approx(own.intervals.values, rel=0.3)
    assert combined.metrics["interval_windows"] == own.metrics["interval_windows"]


def test_a_model_that_was_fitted_on_the_tail_is_no_member(flts: Installation) -> None:
    run = flts.run(SERIES)
    event = linear(flts, run, HORIZON)

    rows = scores(flts, run.data, event, network(flts, run, event, fitted_rows=600))

    assert list(rows) == ["GRU", "LINEAR"]


def test_a_repeated_decision_finds_the_combination_in_the_store(flts: Installation) -> None:
    run = flts.run(SERIES)
    event = linear(flts, run, HORIZON)
    other = network(flts, run, event, fitted_rows=500)
    first = scores(flts, run.data, event, other)["COMBINATION"]["bundle"]
    newer = flts.again(run)

    again = scores(flts, newer.data, linear(flts, newer, HORIZON), network(flts, newer, event, fitted_rows=500))

    assert again["COMBINATION"]["bundle"] == first
    assert again["COMBINATION"]["reused"]
