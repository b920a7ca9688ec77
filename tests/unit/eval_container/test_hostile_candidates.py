"""Eval refuses a candidate with a forged bundle and states the reason; it still judges the good candidates."""

from __future__ import annotations

from pathlib import Path

import pytest

from flts.contracts.events import ModelSelected
from tests.evaluated_runs import Installation, announced, window_bundle
from tests.hostile_bundles import ATTACKS, Attack, plant

CHOSEN = {
    "another model than promised": "hash_mismatch",
    "weights that are NaN": "bad_bundle",
    "2^31 cells out of small weights": "bad_bundle",
    "2^31 cells for a full batch": "bad_bundle",
    "external data": "bad_bundle",
    "a pickle as model": "bad_bundle",
    "an unknown format version": "bad_bundle",
}


@pytest.mark.parametrize("attack", [each for each in ATTACKS if each.name in CHOSEN], ids=lambda attack: attack.name)
def test_a_hostile_candidate_is_refused_and_the_good_one_promoted(tmp_path: Path, attack: Attack) -> None:
    flts = Installation(tmp_path)
    run = flts.run()
    made = window_bundle(run, "GRU", 0.5)
    claim = plant(flts.store, made[0], attack.make(*made))

    told = flts.send(run.data, announced(run, "GRU", bundle=claim), flts.trained(run, "LSTM", 0.5))

    [selected] = [event for event in told if isinstance(event, ModelSelected)]
    assert (selected.decision, selected.model_type) == ("promoted", "LSTM")
    rows = {row["model_type"]: row for row in flts.scoreboard(selected)["candidates"]}
    assert (rows["GRU"]["status"], rows["GRU"]["passed"]) == ("unusable", False)
    [reason] = rows["GRU"]["reasons"]
    assert reason["code"] == CHOSEN[attack.name]
    assert attack.words in reason["message"]
    assert rows["LSTM"]["status"] == "scored"
