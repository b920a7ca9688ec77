from __future__ import annotations

import math

import pytest

from eval_container.domain.gate import GateRules, Reason
from eval_container.domain.promotion import Champion, Standing, choose, moved_pointer, ranked

RULES = GateRules()


def _standing(
    model_type: str, score: float, *, cost: int = 100, kind: int = 1, sha: str = "", reason: str = ""
) -> Standing:
    reasons = (Reason(reason, "why"),) if reason else ()
    return Standing(model_type, score, (kind, cost), sha or model_type, reasons)


def test_the_lowest_score_is_promoted() -> None:
    choice = choose([_standing("GRU", 0.3), _standing("LSTM", 0.2)], None, RULES)

    assert (choice.decision, choice.winner) == ("promoted", "LSTM")


def test_a_tie_goes_to_the_cheaper_to_serve() -> None:
    tied = [_standing("LSTM", 0.2, cost=400), _standing("GRU", 0.2, cost=300), _standing("PROPHET", 0.2, kind=0)]

    assert [standing.model_type for standing in ranked(tied)] == ["PROPHET", "GRU", "LSTM"]


def test_a_candidate_that_fails_the_gate_is_passed_over() -> None:
    choice = choose([_standing("GRU", 0.1, reason="hash_mismatch"), _standing("LSTM", 0.2)], None, RULES)

    assert (choice.decision, choice.winner) == ("promoted", "LSTM")


def test_if_none_passes_nothing_is_promoted_and_every_reason_is_given() -> None:
    choice = choose(
        [_standing("GRU", 0.1, reason="no_skill"), _standing("LSTM", math.nan, reason="silent")], None, RULES
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
    assert choose([_standing("GRU", 0.2)], Champion("LSTM", "old", champion), RULES).decision == decision


def test_a_champion_that_is_not_asked_does_not_defend_itself() -> None:
    rules = GateRules(against_champion=False)

    assert choose([_standing("GRU", 0.2)], Champion("LSTM", "old", 0.1), rules).decision == "promoted"


def test_a_champion_that_cannot_read_the_rows_loses_its_place_with_the_reason() -> None:
    champion = Champion("LSTM", "old", None, Reason("champion_other_targets", "why"))

    choice = choose([_standing("GRU", 0.2)], champion, RULES)

    assert choice.decision == "promoted"
    assert [reason.code for reason in choice.reasons] == ["best_score", "champion_other_targets"]


@pytest.mark.parametrize("against_champion", [True, False])
def test_the_champions_own_bundle_is_not_promoted_again(against_champion: bool) -> None:
    champion = Champion("GRU", "same", 0.2)

    choice = choose([_standing("GRU", 0.2, sha="same")], champion, GateRules(against_champion=against_champion))

    assert (choice.decision, choice.reasons[0].code) == ("kept", "same_bundle")


def test_a_rolled_back_pointer_is_the_old_champion_under_the_new_run() -> None:
    target = {"run_id": "old", "pipeline_run_id": "1", "model_type": "GRU", "previous": {"run_id": "older"}}

    pointer = moved_pointer(target, pipeline_run_id="3", timestamp="t")

    assert (pointer["run_id"], pointer["pipeline_run_id"], pointer["timestamp"]) == ("old", "3", "t")
    assert "previous" not in pointer, "the store adds what the pointer replaces"
