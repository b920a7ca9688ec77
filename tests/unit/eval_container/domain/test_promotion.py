from __future__ import annotations

import math

import numpy as np
import pytest

from eval_container.domain.gate import GateRules, Reason
from eval_container.domain.promotion import Candidate, Champion, choose, moved_pointer, ranked
from eval_container.domain.scoring import Scorecard
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import ModelTraining

RULES = GateRules()


def _card(score: float) -> Scorecard:
    return Scorecard(score, rmse=score, mae=score, mse=score, losses=np.array([score]), left_out=0)


def _candidate(
    model_type: str, score: float, *, cost: int = 100, kind: int = 1, sha: str = "", reason: str = ""
) -> Candidate:
    claim = ClaimCheck.model_construct(sha256=sha or model_type)
    return Candidate(
        model_type,
        ModelTraining.model_construct(bundle=claim),
        serving_cost=(kind, cost),
        card=_card(score),
        reasons=(Reason(reason, "why"),) if reason else (),
    )


def _champion(sha: str, score: float | None) -> Champion:
    pointer = {"model_type": "LSTM", "bundle": {"sha256": sha}}
    return Champion(pointer, card=None if score is None else _card(score))


def test_the_lowest_score_is_promoted() -> None:
    choice = choose([_candidate("GRU", 0.3), _candidate("LSTM", 0.2)], None, RULES)

    assert (choice.decision, choice.winner) == ("promoted", "LSTM")


def test_a_tie_goes_to_the_cheaper_to_serve() -> None:
    tied = [_candidate("LSTM", 0.2, cost=400), _candidate("GRU", 0.2, cost=300), _candidate("PROPHET", 0.2, kind=0)]

    assert [candidate.model_type for candidate in ranked(tied)] == ["PROPHET", "GRU", "LSTM"]


def test_a_candidate_that_fails_the_gate_is_passed_over() -> None:
    choice = choose([_candidate("GRU", 0.1, reason="hash_mismatch"), _candidate("LSTM", 0.2)], None, RULES)

    assert (choice.decision, choice.winner) == ("promoted", "LSTM")


def test_if_none_passes_nothing_is_promoted_and_every_reason_is_given() -> None:
    choice = choose(
        [_candidate("GRU", 0.1, reason="no_skill"), _candidate("LSTM", math.nan, reason="silent")], None, RULES
    )

    assert (choice.decision, choice.winner) == ("refused", None)
    assert [reason.code for reason in choice.reasons] == ["no_skill", "silent"]
    assert choice.reasons[0].message == "GRU: why"


def test_without_candidates_the_reason_says_so() -> None:
    assert [reason.code for reason in choose([], None, RULES).reasons] == ["no_candidate"]


@pytest.mark.parametrize(
    ("champion", "decision"), [(0.3, "promoted"), (0.2, "kept"), (0.2 + 1e-8, "kept"), (0.1, "kept")]
)
def test_the_champion_keeps_its_place_unless_beaten(champion: float, decision: str) -> None:
    assert choose([_candidate("GRU", 0.2)], _champion("old", champion), RULES).decision == decision


def test_a_champion_that_is_not_asked_does_not_defend_itself() -> None:
    rules = GateRules(against_champion=False)

    assert choose([_candidate("GRU", 0.2)], _champion("old", 0.1), rules).decision == "promoted"


def test_a_champion_that_cannot_read_the_rows_loses_its_place_with_the_reason() -> None:
    champion = _champion("old", None).refused(Reason("champion_other_targets", "why"))

    choice = choose([_candidate("GRU", 0.2)], champion, RULES)

    assert choice.decision == "promoted"
    assert [reason.code for reason in choice.reasons] == ["best_score", "champion_other_targets"]


@pytest.mark.parametrize("against_champion", [True, False])
def test_the_champions_own_bundle_is_not_promoted_again(against_champion: bool) -> None:
    champion = _champion("same", 0.2)

    choice = choose([_candidate("GRU", 0.2, sha="same")], champion, GateRules(against_champion=against_champion))

    assert (choice.decision, choice.reasons[0].code) == ("kept", "same_bundle")


def test_a_rolled_back_pointer_is_the_old_champion_under_the_new_run() -> None:
    target = {"run_id": "old", "pipeline_run_id": "1", "model_type": "GRU", "previous": {"run_id": "older"}}

    pointer = moved_pointer(target, pipeline_run_id="3", timestamp="t")

    assert (pointer["run_id"], pointer["pipeline_run_id"], pointer["timestamp"]) == ("old", "3", "t")
    assert "previous" not in pointer, "the store adds what the pointer replaces"
