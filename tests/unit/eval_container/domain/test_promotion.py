from __future__ import annotations

import math

import numpy as np
import pytest

from eval_container.domain.gate import GateRules, Reason
from eval_container.domain.promotion import Candidate, Champion, Choice, choose, moved_pointer
from eval_container.domain.scoring import Scorecard
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import ModelTraining

RULES = GateRules()
ORIGINS = np.arange(100)
HORIZON = 5


def _card(score: float, noise: float = 0.2) -> Scorecard:
    """Return a card whose losses vary from origin to origin in the same way for every model."""
    pattern = 1 + noise * np.sin(np.arange(len(ORIGINS)))[:, None] * np.ones(HORIZON)
    losses = score * pattern / pattern.mean()
    return Scorecard(score, score, rmse=score, mae=score, mse=score, losses=losses, blocks=(score,), left_out=0)


def _choose(candidates: list[Candidate], champion: Champion | None = None, rules: GateRules = RULES) -> Choice:
    return choose(candidates, champion, rules, origins=ORIGINS)


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
    choice = _choose([_candidate("GRU", 0.9), _candidate("LSTM", 0.6, cost=900)])

    assert (choice.decision, choice.winner) == ("promoted", "LSTM")
    assert choice.why_baseline is None


def test_of_equals_the_cheapest_to_serve_is_promoted() -> None:
    tied = [_candidate("LSTM", 0.8, cost=400), _candidate("GRU", 0.8, cost=300), _candidate("PROPHET", 0.8, kind=0)]

    assert _choose(tied).winner == "PROPHET"


def test_a_candidate_that_fails_the_gate_is_passed_over() -> None:
    choice = _choose([_candidate("GRU", 0.1, reason="hash_mismatch"), _candidate("LSTM", 0.2)])

    assert (choice.decision, choice.winner) == ("promoted", "LSTM")


def test_if_none_passes_the_best_baseline_is_promoted_with_every_reason() -> None:
    models = [_candidate("GRU", 0.99, reason="no_skill"), _candidate("LSTM", math.nan, reason="silent")]

    choice = choose(models, None, RULES, best=_candidate("MEAN", 1.0), origins=ORIGINS)

    assert (choice.decision, choice.winner) == ("promoted", "MEAN")
    assert [reason.code for reason in choice.reasons] == ["baseline", "no_skill", "silent"]
    assert choice.reasons[1].message == "GRU: why"
    assert choice.why_baseline == "no model passes the gate, so the best baseline is served: MEAN"


def test_without_a_baseline_that_can_be_served_nothing_is_promoted() -> None:
    choice = _choose([_candidate("GRU", 0.1, reason="no_skill"), _candidate("LSTM", math.nan, reason="silent")])

    assert (choice.decision, choice.winner) == ("refused", None)
    assert [reason.code for reason in choice.reasons] == ["no_skill", "silent"]


def test_without_candidates_the_reason_says_so() -> None:
    assert [reason.code for reason in choose([], None, RULES).reasons] == ["no_candidate"]


@pytest.mark.parametrize(
    ("champion", "decision"),
    [(0.3, "promoted"), (0.2, "promoted"), (0.199, "promoted"), (0.197, "kept"), (0.1, "kept")],
)
def test_the_champion_is_kept_where_the_new_model_is_over_a_hundredth_worse(champion: float, decision: str) -> None:
    assert _choose([_candidate("GRU", 0.2)], _champion("old", champion)).decision == decision


def test_a_better_champion_is_kept_against_a_baseline() -> None:
    choice = choose([], _champion("old", 0.8), RULES, best=_candidate("MEAN", 1.0), origins=ORIGINS)

    assert (choice.decision, choice.winner, choice.why_baseline) == ("kept", "MEAN", None)


def test_rows_that_the_champion_was_fitted_on_do_not_count() -> None:
    flattered = _card(0.9)
    flattered.losses[:50] = 0.01  # it has seen the first half
    champion = Champion({"model_type": "LSTM", "bundle": {"sha256": "old"}}, card=flattered, unseen=ORIGINS >= 50)

    assert _choose([_candidate("GRU", 0.8)], champion).decision == "promoted"


def test_a_champion_that_is_not_asked_does_not_defend_itself() -> None:
    rules = GateRules(against_champion=False)

    assert _choose([_candidate("GRU", 0.2)], _champion("old", 0.1), rules).decision == "promoted"


def test_a_champion_that_cannot_read_the_rows_loses_its_place_with_the_reason() -> None:
    champion = _champion("old", None).refused(Reason("champion_other_targets", "why"))

    choice = _choose([_candidate("GRU", 0.2)], champion)

    assert choice.decision == "promoted"
    assert [reason.code for reason in choice.reasons] == ["best_score", "champion_other_targets"]


@pytest.mark.parametrize("against_champion", [True, False])
def test_the_champions_own_bundle_is_not_promoted_again(against_champion: bool) -> None:
    champion = _champion("same", 0.2)

    choice = _choose([_candidate("GRU", 0.2, sha="same")], champion, GateRules(against_champion=against_champion))

    assert (choice.decision, choice.reasons[0].code) == ("kept", "same_bundle")


def test_a_rolled_back_pointer_is_the_old_champion_under_the_new_run() -> None:
    target = {"run_id": "old", "pipeline_run_id": "1", "model_type": "GRU", "previous": {"run_id": "older"}}

    pointer = moved_pointer(target, pipeline_run_id="3", timestamp="t")

    assert (pointer["run_id"], pointer["pipeline_run_id"], pointer["timestamp"]) == ("old", "3", "t")
    assert "previous" not in pointer, "the store adds what the pointer replaces"
