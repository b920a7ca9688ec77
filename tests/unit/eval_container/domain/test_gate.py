from __future__ import annotations

import numpy as np
import pytest

from eval_container.domain.gate import (
    COST_BYTES,
    Contest,
    GateRules,
    Passing,
    compare,
    cut_pieces,
    judge,
    keep_champion,
    select,
    unseen,
)
from tests.chance_candidates import judged, random_walk, white_noise

RULES = GateRules()
HORIZON = 10


def _losses(level: float = 1.0, *, seed: int = 0, origins: int = 200, noise: float = 0.1) -> np.ndarray:
    """Return losses (origins, HORIZON) around a level."""
    return level * (1 + noise * np.random.default_rng(seed).standard_normal((origins, HORIZON)))


def _contest(losses: np.ndarray, **baselines: np.ndarray) -> Contest:
    return Contest(losses, baselines, np.arange(len(losses)))


def _codes(contest: Contest, **options) -> list[str]:
    options = {"closed_form": True, "candidates": 1, "rules": RULES} | options
    return [reason.code for reason in judge(contest, "PERSISTENCE", **options).reasons]


def test_pieces_are_as_long_as_the_horizon_and_do_not_overlap() -> None:
    pieces = cut_pieces(np.arange(250), 24)

    assert len(pieces.bounds) == 10
    rows = [row for first, last in pieces.bounds for row in range(first, last)]
    assert rows == list(range(250))
    assert min(last - first for first, last in pieces.bounds) >= 24


def test_pieces_of_thinned_origins_are_as_long_in_rows() -> None:
    assert len(cut_pieces(np.arange(0, 240, 5), 24).bounds) == 9  # 48 origins, 5 of them reach over 25 rows


@pytest.mark.parametrize(("origins", "pieces"), [(1000, 100), (80, 8), (30, 10), (5, 5), (1, 1), (0, 0)])
def test_a_horizon_of_one_step_has_pieces_of_several_origins(origins: int, pieces: int) -> None:
    assert len(cut_pieces(np.arange(origins), 1).bounds) == pieces


def test_fewer_origins_than_a_horizon_are_no_piece() -> None:
    pieces = cut_pieces(np.arange(23), 24)

    assert pieces.means(np.ones((23, 24))).shape == (0, 24)


def test_the_test_over_pieces_by_hand() -> None:
    # The differences 1, 0.5 and 1.5 have t = 3.464 and the log ratios t = 4.54; with 2 degrees p is 0.0371 and 0.0226.
    test = compare(np.ones(3), np.array([2.0, 1.5, 2.5]))

    assert test.gain == pytest.approx(0.5)
    assert test.p_value == pytest.approx(0.0371, abs=1e-4)
    assert test.pieces == 3


def test_one_turbulent_piece_is_no_advantage() -> None:
    reference = np.append(np.ones(19), 100.0)
    losses = np.append(np.full(19, 1.05), 10.0)

    assert compare(losses, reference).gain > 0.7
    assert compare(losses, reference).p_value > 0.2


def test_an_advantage_everywhere_is_certain_and_none_is_not() -> None:
    losses = np.full(10, 0.5)

    assert compare(losses, 2 * losses).p_value == 0.0
    assert compare(losses, losses).p_value == 1.0
    assert compare(losses * (1 - 1e-8), losses).p_value == 1.0
    assert compare(np.zeros(10), losses).p_value == 0.0
    assert compare(losses, np.zeros(10)).gain == -np.inf
    assert compare(losses[:1], 2 * losses[:1]).p_value == 1.0


def test_a_model_that_is_better_everywhere_passes() -> None:
    contest = _contest(_losses(0.8), PERSISTENCE=_losses(seed=1), MEAN=_losses(1.2, seed=2))

    verdict = judge(contest, "PERSISTENCE", closed_form=False, candidates=6, rules=RULES)

    assert verdict.reasons == ()
    assert verdict.comparison is not None
    assert verdict.comparison.pieces == 20
    assert verdict.comparison.gain == pytest.approx(0.2, abs=0.01)


def test_a_significant_gain_of_less_than_two_percent_does_not_pass() -> None:
    reference = _losses(seed=1)

    assert _codes(_contest(0.985 * reference, PERSISTENCE=reference)) == ["no_skill"]
    assert _codes(_contest(0.975 * reference, PERSISTENCE=reference)) == []


def test_a_gain_that_may_be_luck_does_not_pass_and_each_candidate_has_its_share_of_the_chance() -> None:
    piece = np.repeat(np.random.default_rng(5).standard_normal(20), HORIZON)[:, None]
    reference = _losses(seed=1)
    contest = _contest(reference * (0.93 + 0.14 * piece), PERSISTENCE=reference)
    p_value = judge(contest, "PERSISTENCE", closed_form=True, candidates=1, rules=RULES).comparison.p_value

    assert 0.001 < p_value < 0.5
    assert _codes(contest, rules=GateRules(significance=1.5 * p_value)) == []
    assert _codes(contest, rules=GateRules(significance=1.5 * p_value), candidates=2) == ["skill_within_noise"]


def test_with_few_pieces_only_a_closed_form_with_a_large_gain_passes() -> None:
    reference = _losses(seed=1, origins=50)
    large, small = (_contest(share * reference, PERSISTENCE=reference) for share in (0.85, 0.95))

    assert _codes(large) == []
    assert _codes(small) == ["no_skill"]
    assert _codes(large, closed_form=False) == ["too_few_pieces"]
    assert _codes(_contest(0.5 * reference[:10], PERSISTENCE=reference[:10])) == ["skill_within_noise"], "one piece"


def test_folds_add_pieces_where_the_held_out_rows_have_few() -> None:
    reference = _losses(seed=1, origins=50)
    fold = _losses(seed=2, origins=40)
    contest = _contest(0.95 * reference, PERSISTENCE=reference)
    folds = [_contest(0.9 * fold, PERSISTENCE=fold)]

    verdict = judge(contest, "PERSISTENCE", closed_form=False, candidates=1, rules=RULES, folds=folds)

    assert verdict.reasons == ()
    assert verdict.comparison.pieces == 9


def test_a_fold_with_fewer_origins_than_the_horizon_is_one_piece() -> None:
    reference = _losses(seed=1, origins=10)
    fold = _losses(seed=2, origins=4)
    folds = [_contest(share * fold, PERSISTENCE=fold) for share in (0.7, 0.75, 0.8)]

    assert len(cut_pieces(np.arange(4), HORIZON, apart_from_all=True).bounds) == 1
    assert cut_pieces(np.arange(0), HORIZON, apart_from_all=True).bounds == ()
    assert _codes(_contest(0.7 * reference, PERSISTENCE=reference), folds=folds) == []
    assert _codes(_contest(0.7 * reference, PERSISTENCE=reference), folds=folds, closed_form=False) == [
        "too_few_pieces"
    ]


def test_folds_do_not_replace_a_gain_on_the_held_out_rows() -> None:
    reference = _losses(seed=1, origins=50)
    fold = _losses(seed=2, origins=40)

    assert _codes(
        _contest(1.01 * reference, PERSISTENCE=reference), folds=[_contest(0.5 * fold, PERSISTENCE=fold)]
    ) == ["no_skill"]


def test_folds_are_not_used_where_the_held_out_rows_have_enough_pieces() -> None:
    reference = _losses(seed=1)
    fold = _losses(seed=2, origins=40)
    contest = _contest(0.9 * reference, PERSISTENCE=reference)

    assert _codes(contest, folds=[_contest(9 * fold, PERSISTENCE=fold)]) == []


def test_a_block_of_steps_that_is_surely_worse_than_its_best_baseline_does_not_pass() -> None:
    reference, mean = _losses(seed=1), _losses(1.5, seed=2)
    mean[:, 0] = 0.5
    losses = 0.7 * reference
    losses[:, 0] = 0.6

    reasons = judge(
        _contest(losses, PERSISTENCE=reference, MEAN=mean), "PERSISTENCE", closed_form=True, candidates=1, rules=RULES
    ).reasons

    assert [reason.code for reason in reasons] == ["worse_block"]
    assert "20.0% worse than MEAN at step 1," in reasons[0].message


def test_a_block_that_is_worse_by_chance_or_by_less_than_two_percent_passes() -> None:
    reference = _losses(seed=1)
    losses = 0.7 * reference
    losses[:, 0] = 1.015 * reference[:, 0]
    noisy = losses.copy()
    noisy[:, 0] = reference[:, 0] * (1.04 + 0.5 * np.random.default_rng(3).standard_normal(len(noisy)))

    assert _codes(_contest(losses, PERSISTENCE=reference)) == []
    assert noisy[:, 0].mean() > 1.02 * reference[:, 0].mean()
    assert _codes(_contest(noisy, PERSISTENCE=reference)) == []


def test_forecasts_that_are_not_finite_and_a_test_without_origins_do_not_pass() -> None:
    losses = _losses()
    broken = losses.copy()
    broken[3, 2] = np.inf

    assert _codes(_contest(broken, PERSISTENCE=losses)) == ["not_finite"]
    assert _codes(_contest(losses[:0], PERSISTENCE=losses[:0])) == ["no_origins"]


def test_a_least_gain_below_zero_switches_the_tests_off() -> None:
    reference = _losses(seed=1, origins=15)
    off = GateRules(min_gain=-0.5)

    assert _codes(_contest(1.2 * reference, PERSISTENCE=reference), rules=off, closed_form=False) == []
    assert _codes(_contest(1.6 * reference, PERSISTENCE=reference), rules=off) == ["no_skill"]


def test_the_cheaper_to_serve_is_chosen_unless_the_other_is_significantly_better() -> None:
    rows = np.arange(200)
    losses = _losses(0.8)
    by_turns = np.repeat([1.0, -1.0] * 10, HORIZON)[:, None]
    network = Passing("GRU", (0, 9 * COST_BYTES), losses)
    linear = Passing("LINEAR", (0, COST_BYTES), losses * (1.01 + 0.1 * by_turns))
    strong = Passing("LSTM", (0, 8 * COST_BYTES), 0.7 * losses)

    level = select([network, linear], rows, RULES)
    better = select([network, linear, strong], rows, RULES)

    assert level is not None
    assert better is not None
    assert (level.winner, level.reason.code) == ("LINEAR", "cheaper_to_serve")
    assert "cheaper to serve than GRU" in level.reason.message
    assert (better.winner, better.reason.code) == ("LSTM", "best_score")


def test_of_models_of_a_similar_size_the_one_with_the_lowest_score_is_chosen() -> None:
    rows, losses = np.arange(30), _losses(0.8, origins=30)
    linear = Passing("LINEAR", (0, COST_BYTES - 1), losses)
    theta = Passing("THETA", (0, COST_BYTES // 2), 1.01 * losses)
    equal = Passing("THETA", (0, COST_BYTES // 2), losses)

    better, tie = select([linear, theta], rows, RULES), select([linear, equal], rows, RULES)

    assert better is not None
    assert tie is not None
    assert (better.winner, tie.winner) == ("LINEAR", "THETA")


def test_one_passing_model_is_chosen_and_none_is_no_choice() -> None:
    alone = select([Passing("LINEAR", (0, 1), _losses(0.5))], np.arange(200), RULES)

    assert alone is not None
    assert "alone passes" in alone.reason.message
    assert select([], np.arange(0), RULES) is None


@pytest.mark.parametrize(
    ("score", "kept", "code"),
    [
        (0.9, False, "beats_champion"),
        (1.0, False, "equals_champion"),
        (1.009, False, "equals_champion"),
        (1.011, True, "champion_not_beaten"),
    ],
)
def test_the_champion_is_kept_only_if_the_new_model_is_worse_by_more_than_a_percent(
    score: float, kept: bool, code: str
) -> None:
    champion = np.ones((20, HORIZON))

    held, reason = keep_champion("LINEAR", score * champion, "GRU", champion, RULES)

    assert (held, reason.code) == (kept, code)


def test_a_champion_that_cannot_be_compared_is_replaced() -> None:
    losses = np.ones((20, HORIZON))

    def code(champion: np.ndarray, rules: GateRules = RULES) -> tuple[bool, str]:
        held, reason = keep_champion("LINEAR", 5 * losses[: len(champion)], "GRU", champion, rules)
        return held, reason.code

    assert code(losses[:0]) == (False, "champion_not_scored")
    assert code(np.full((20, HORIZON), np.nan)) == (False, "champion_not_finite")
    assert code(losses, GateRules(against_champion=False)) == (False, "champion_not_asked")


def test_only_rows_after_every_fit_are_compared() -> None:
    assert unseen(np.array([10, 20, 30, 40]), 20, 29).tolist() == [False, False, True, True]


def test_random_walks_promote_nothing_though_some_candidate_is_usually_lucky() -> None:
    promoted = lucky = 0
    for seed in range(30):
        best, verdicts, scores = judged(random_walk(seed))
        assert best == "PERSISTENCE"
        promoted += any(not verdict.reasons for verdict in verdicts.values())
        lucky += bool((scores < 1).any())

    assert promoted <= 1
    assert lucky >= 20, "without the test these would have been promoted"


def test_on_white_noise_the_mean_is_the_best_baseline_and_nothing_is_promoted() -> None:
    for seed in range(15):
        best, verdicts, _ = judged(white_noise(seed))

        assert best == "MEAN"
        assert all(verdict.reasons for verdict in verdicts.values()), seed


def test_a_season_with_a_level_that_returns_passes_in_every_series() -> None:
    for seed in range(5):
        noise = np.random.default_rng(seed).standard_normal(2_800)
        level = np.zeros(len(noise))
        for at in range(1, len(noise)):
            level[at] = 0.9 * level[at - 1] + noise[at]
        series = level + 4 * np.sin(2 * np.pi * np.arange(len(noise)) / 24)

        _, verdicts, _ = judged(series)

        assert verdicts["AUTOREGRESSION"].reasons == (), seed
        assert verdicts["DRIFT"].reasons, seed
