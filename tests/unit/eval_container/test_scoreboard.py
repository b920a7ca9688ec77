"""The scoreboard and the decision of a fixed run change only on purpose: the review is the diff of the golden file."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flts.bundle.write import store_bundle
from flts.contracts.events import EvaluateRequest, ModelSelected
from flts.contracts.ids import canonical_json, derived_event_id
from tests.evaluated_runs import (
    CREATED,
    IDENTIFIER,
    Installation,
    Run,
    announced,
    autoregression,
    timestamps_bundle,
)

GOLDEN = Path(__file__).parent / "golden"
TYPES = ("GRU", "LSTM", "PROPHET", "OTHER", "HOLT")
ROUNDING = 1e-4
"""Largest relative difference of a measured number, as for probes: kernels on other machines round differently."""


@pytest.fixture
def flts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    names = _run_names()
    monkeypatch.setattr("tests.evaluated_runs.new_pipeline_run_id", lambda: next(names))
    monkeypatch.setattr("eval_container.settings.known_model_types", tuple)  # accepts types without a trainer
    return Installation(tmp_path, expected_model_types=TYPES)


def test_a_run_with_a_row_of_every_kind_has_the_golden_scoreboard_and_decision(flts: Installation) -> None:
    old = flts.run(_series(seed=3), test_rows=60)
    champion = _decide(flts, old, flts.trained(old, "GRU", 0.8))
    assert champion.decision == "promoted"
    run = flts.run(_series(seed=4), test_rows=60)
    damaged = flts.trained(run, "OTHER", 0.4)
    assert damaged.bundle is not None
    flts.store.put(damaged.bundle.bucket, damaged.bundle.object_key.replace("bundle.json", "model.onnx"), b"x")
    prophet = store_bundle(flts.store, flts.settings.bucket_model_bundles, *timestamps_bundle(run))

    selected = _decide(
        flts,
        run,
        flts.trained(run, "GRU", 0.5, width=0.5),
        announced(run, "LSTM", error="out of memory"),
        announced(run, "PROPHET", bundle=prophet),
        damaged,
    )

    _compare("promoted", flts, run, selected)


def test_a_run_in_which_nothing_can_be_scored_has_the_golden_scoreboard_and_decision(flts: Installation) -> None:
    run = flts.run(_series(seed=4), test_rows=1, context_rows=0)

    selected = _decide(flts, run, announced(run, "GRU", error="out of memory"))

    _compare("refused", flts, run, selected)


def _series(*, seed: int) -> Any:
    series = autoregression(300, 0.5, seed=seed, columns=("down", "flat"))
    series.values[:, 1] = 7
    series.values[270:273, 0] = np.nan
    return series


def _decide(flts: Installation, run: Run, *trained: Any) -> ModelSelected:
    """Send the trainers' events, and decide the run without the types that sent none."""
    request = EvaluateRequest(
        event_id=derived_event_id(run.id, "request"),
        identifier=IDENTIFIER,
        pipeline_run_id=run.id,
        created_at=CREATED,
        of_run=run.id,
    )
    assert flts.send(run.data, *trained) == []
    flts.clock += 400
    (selected,) = flts.send(request)
    assert isinstance(selected, ModelSelected)
    return selected


def _compare(name: str, flts: Installation, run: Run, selected: ModelSelected) -> None:
    """Compare the canonical bytes, without what differs between runs or machines (`_lasting`, `ROUNDING`)."""
    decision = dict(flts.run_store.evaluations.decision(IDENTIFIER, run.id) or {})
    del decision["scoreboard"]  # the scoreboard's key contains a hash over durations, and durations differ in each run
    measured = _lasting({"scoreboard": flts.scoreboard(selected), "decision": decision})
    golden = json.loads((GOLDEN / f"{name}.json").read_text())

    assert canonical_json(_evened(measured, golden)) == canonical_json(golden)


def _lasting(value: Any) -> Any:
    """Return the values without durations, and without hashes of bundles: a last digit of an interval changes one."""
    if isinstance(value, dict):
        replaced = {"seconds": 0.0} | ({"sha256": "", "size": 0} if "object_key" in value else {})
        return {name: replaced.get(name, _lasting(part)) for name, part in value.items()}
    return [_lasting(part) for part in value] if isinstance(value, list) else value


def _evened(measured: Any, golden: Any) -> Any:
    """Return the measured values; a number that differs only by rounding is replaced by the golden number."""
    if isinstance(measured, dict) and isinstance(golden, dict):
        return {name: _evened(part, golden.get(name)) for name, part in measured.items()}
    if isinstance(measured, list) and isinstance(golden, list) and len(measured) == len(golden):
        return [_evened(part, other) for part, other in zip(measured, golden, strict=True)]
    both = isinstance(measured, float) and isinstance(golden, float)
    return golden if both and measured == pytest.approx(golden, rel=ROUNDING) else measured


def _run_names() -> Iterator[str]:
    """Yield UUIDv7s, each later than the one before."""
    return (f"019b76d5-{number:04x}-7000-8000-000000000000" for number in itertools.count())
