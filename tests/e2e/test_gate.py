"""The gate, end to end: no model is promoted on a random walk, and none that is worse than the champion."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flts.trainers import BASELINES, COMBINATION
from tests.stack import SMALL, RunningStack, running_stack
from tests.swinging import write_swinging
from tests.trainers import LONG_TYPES

WALKS = 20
ROWS = 2500
FAST = {"EPOCHS": 20, "HIDDEN_SIZE": 32, "NUM_LAYERS": 1, "BATCH_SIZE": 64, "HORIZON": 24}
SHORT = {**FAST, "EPOCHS": 5}
"""Settings of the walk that `make test` trains on."""


def write_walk(path: Path, seed: int) -> Path:
    """Write a random walk: its next step does not depend on earlier rows, so persistence is the best forecast."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    values = np.cumsum(np.random.default_rng(seed).normal(size=ROWS))
    lines = [f"{start + timedelta(minutes=10 * at):%Y-%m-%dT%H:%M:%SZ},{value:.6f}" for at, value in enumerate(values)]
    path.write_text("\n".join(["time,level", *lines]) + "\n")
    return path


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_champion_keeps_its_place_against_a_worse_model_on_new_test_rows(tmp_path: Path) -> None:
    train, test = write_swinging(tmp_path, train_rows=2500, test_rows=400)
    later = _without_first_rows(test, tmp_path / "later.csv", 100)
    # GRU alone, and one step: LINEAR would be the same in both runs, and an equal replaces the champion.
    with running_stack(tmp_path / "home", **{**SMALL, "EXPECTED_MODEL_TYPES": "GRU"}) as stack:
        _keeps_its_place(stack, train, test, later)


def _keeps_its_place(stack: RunningStack, train: Path, test: Path, later: Path) -> None:
    first = stack.wait_decided(stack.upload("throne", train, test, settings={"EPOCHS": 8, "HORIZON": 1}))
    assert first["decision"]["model_type"] == "GRU", first["decision"]

    settings = {"EPOCHS": 1, "HIDDEN_SIZE": 2, "HORIZON": 1}
    second = stack.wait_decided(stack.upload("throne", train, later, settings=settings))

    champion = second["scoreboard"]["champion"]
    assert second["config_hash"] != first["config_hash"], "other test rows are another configuration"
    assert champion["run_id"] == first["decision"]["run_id"]
    assert champion["score"] is not None, "the champion was asked to forecast the new rows"
    assert second["outcome"] == "kept", second["decision"]
    assert champion["score"] < second["scoreboard"]["candidates"][0]["score"]
    with stack.gateway as client:
        current = {one["identifier"]: one for one in client.get("/datasets").json()["datasets"]}["throne"]["champion"]
    assert current["run_id"] == first["decision"]["run_id"], "nothing moved"


@pytest.mark.timeout(120)
def test_of_a_random_walk_a_baseline_is_served_with_the_reason(stack: RunningStack, tmp_path: Path) -> None:
    run = stack.wait_decided(stack.upload("one-walk", write_walk(tmp_path / "walk.csv", 0), settings=SHORT))

    assert run["outcome"] == "promoted", run["decision"]
    assert run["decision"]["model_type"] in BASELINES
    assert run["decision"]["reasons"][0].startswith("baseline: ")
    assert {row["model_type"] for row in run["scoreboard"]["candidates"]} - {COMBINATION} == set(LONG_TYPES)
    stack.wait_served("one-walk", run["decision"]["run_id"])
    forecast = stack.forecast(stack.question("one-walk"))
    assert forecast["model_type"] == run["decision"]["model_type"]
    assert forecast["baseline"]


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_of_twenty_random_walks_at_most_one_promotes_a_model(tmp_path: Path) -> None:
    with running_stack(tmp_path / "home", **SMALL) as stack:
        started = {
            seed: stack.upload(f"walk-{seed:02d}", write_walk(tmp_path / f"{seed}.csv", seed), settings=FAST)
            for seed in range(WALKS)
        }
        runs = {seed: stack.wait_decided(run_id, timeout=1200) for seed, run_id in started.items()}

    rows = [_figures(seed, run) for seed, run in runs.items()]
    promoted = [row["walk"] for row in rows if row["served"] not in BASELINES]
    lucky = [row["walk"] for row in rows if row["best_skill"] > 0]
    _report(rows, promoted=len(promoted), lucky=len(lucky))
    assert all(row["scored"] == len(LONG_TYPES) for row in rows), "every trainer delivered a model of every walk"
    assert all(row["outcome"] == "promoted" for row in rows), "every walk has a served forecast"
    assert len(promoted) <= 1, promoted


def _figures(seed: int, run: dict[str, Any]) -> dict[str, Any]:
    scored = [row for row in run["scoreboard"]["candidates"] if row["score"] is not None]
    best = max(scored, key=lambda row: row["skill"])
    return {
        "walk": seed,
        "outcome": run["outcome"],
        "served": run["decision"]["model_type"],
        "scored": len(scored),
        "best": best["model_type"],
        "best_skill": best["skill"],
        "gate": ", ".join(reason["code"] for reason in best["reasons"]) or "passed",
    }


def _report(rows: list[dict[str, Any]], *, promoted: int, lucky: int) -> None:
    lines = [
        f"{row['walk']:4}  {row['served']:14}  {row['best']:7}  {row['best_skill']:+.4f}  {row['gate']}" for row in rows
    ]
    last = f"promoted {promoted} of {len(rows)}; ahead of persistence by luck {lucky}"
    sys.stdout.write("\n".join(["", "walk  served          best     skill    gate", *lines, last, ""]))
    folder = os.environ.get("FLTS_REPORTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, "random-walks.json").write_text(json.dumps({"promoted": promoted, "lucky": lucky, "runs": rows}))


def _without_first_rows(source: Path, target: Path, rows: int) -> Path:
    header, *lines = source.read_text().splitlines()
    target.write_text("\n".join([header, *lines[rows:]]) + "\n")
    return target
