"""With explicit lengths, the last release and this code measure the same errors, with reused and with new bundles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline import Pipeline
from tests.released import MODELS, RELEASES, code_of
from tests.reports import report
from tests.stack import running_stack

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

IDENTIFIER = "poblesec"
SETTINGS = {"INPUT_SEQ_LEN": 10, "OUTPUT_SEQ_LEN": 1}
UNLIMITED = {"LOWER_BOUND": "none"}
"""For models of this code; those of the release have no limits."""
NUMBERS = ("score", "rmse", "mae", "mse")
"""The score is the composite, which release 0.1.0 calls `score`. Without `skill`: its reference is persistence, which
has been a bundle of float32 numbers since e796467."""
TABLES = ("table", "coverage")
COMMIT = RELEASES[-1].commit


def test_poblesec_has_the_scores_of_the_last_release(poblesec: tuple[Path, Path], tmp_path: Path) -> None:
    homes = {name: tmp_path / name for name in ("released", "fresh")}
    with running_stack(homes["released"], code=code_of(COMMIT, tmp_path / "code")) as stack:
        released = judged(stack, stack.upload(IDENTIFIER, *poblesec, settings=SETTINGS))
    with running_stack(homes["released"]) as stack:
        request = {"identifier": IDENTIFIER, "settings": SETTINGS}
        again = judged(stack, stack.post("/runs", json=request)["pipeline_run_id"])
    with running_stack(homes["fresh"]) as stack:
        fresh = judged(stack, stack.upload(IDENTIFIER, *poblesec, settings=SETTINGS | UNLIMITED))

    runs = {"release": released, "this code, the release's bundles": again, "this code, trained again": fresh}
    report(
        "same-scores",
        [{"run": name, **{kind: repr(scores(run)[kind, "score"]) for kind in MODELS}} for name, run in runs.items()],
    )
    assert {kind for kind in MODELS if again["trained"][kind]["reused"]} == set(MODELS)
    assert {run["config_hash"] for run in runs.values()} == {released["config_hash"]}
    assert {kind for kind, *_ in scores(released)} == set(MODELS)
    assert differences(again, released) == {}
    assert differences(fresh, released) == {}


def judged(stack: Pipeline, run_id: str) -> dict[str, Any]:
    return stack.wait_decided(run_id, timeout=600)


def scores(run: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """Return the numbers that eval computed for each model, by model, name, and row and column of a table."""
    found = {}
    for row in run["scoreboard"]["candidates"]:
        if row["model_type"] not in MODELS:
            continue
        found |= {(row["model_type"], name): row[name] for name in NUMBERS}
        found[row["model_type"], "score"] = row.get("composite", row["score"])
        for table in TABLES:
            for cell in row[table]:
                at = (row["model_type"], table, str(cell["step"]), str(cell["target"]))
                found |= {(*at, column): value for column, value in cell.items()}
    return found


def differences(run: Mapping[str, Any], released: Mapping[str, Any]) -> dict[tuple[str, ...], tuple[Any, Any]]:
    """Return (this code, release) for each number that differs; numbers that the release lacks are ignored.

    This code widens an interval beside its forecast to contain it, so that an interval may cover more.
    """
    found, expected = scores(run), scores(released)
    differing = {
        name: (found.get(name), value)
        for name, value in expected.items()
        if found.get(name) != (pytest.approx(value, rel=1e-12) if name[-1] == "score" else value)
    }
    wider = {
        name[:-1] for name, (ours, theirs) in differing.items() if name[-1] == "coverage" and ours and ours > theirs
    }
    return {
        name: pair
        for name, pair in differing.items()
        if not (name[:-1] in wider and (name[-1] == "coverage" or (name[-1] == "low" and pair[0] is False)))
    }
