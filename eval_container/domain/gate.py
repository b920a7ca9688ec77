"""The gate over the served horizon: which forecasts are better than the best baseline by more than luck.

The losses of neighbouring origins are alike, because their forecasts cover the same rows. So the held-out origins are
cut into pieces as long as the horizon, and Student's t is taken over the means of the pieces. On random walks a test on
all origins with the usual correction promotes a model without skill in 13 to 58 % of the runs, this one in 0.5 to 2 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

import numpy as np

from eval_container.domain.step_scores import StepBlock, step_blocks
from flts.forecasting.series import BoolArray, FloatArray, IntArray
from flts.forecasting.student_t import upper_tail

LEAST_PIECES = 8
LEAST_ORIGINS = 10
"""Origins of a piece with a shorter horizon: one step would make pieces of one row, whose losses have wide tails."""
EVENT_CHARACTERS = 300
"""Most characters of a reason in an event; twelve such reasons fit into a message in any alphabet."""
COST_BYTES = 64 * 2**10
"""Unit of the size of a model where the cheapest to serve is chosen; a call of a smaller model takes no less time."""
EQUAL = 1e-6
"""Relative difference up to which mean losses are equal; rounding to float32 alone can cause such a difference."""


@dataclass(frozen=True, slots=True)
class Reason:
    """The reason of a decision: a code for programs and a sentence for people."""

    code: str
    message: str

    def as_dict(self) -> dict[str, str]:
        """Return the reason as the scoreboard writes it."""
        return {"code": self.code, "message": self.message}

    def as_text(self) -> str:
        """Return the reason for an event, cut because a message has 16 KiB; the scoreboard contains all of it."""
        text = f"{self.code}: {self.message}"
        return text if len(text) <= EVENT_CHARACTERS else f"{text[: EVENT_CHARACTERS - 4]} ..."


@dataclass(frozen=True, slots=True)
class GateRules:
    """The conditions that a candidate must meet."""

    min_gain: float = 0.02
    """Least gain over the best baseline (``GATE_MIN_SKILL``); below 0 the tests are off."""
    significance: float = 0.02
    """Probability that a run has a candidate that passes without skill (``GATE_SIGNIFICANCE``)."""
    least_pieces: int = LEAST_PIECES
    """Pieces below which the folds are added, and below which only closed forms pass."""
    few_significance: float = 0.05
    """Significance with fewer pieces."""
    few_gain: float = 0.10
    """Least gain with fewer pieces."""
    block_slack: float = 0.02
    """By how much a block of steps may be worse than its best baseline."""
    block_significance: float = 0.05
    """Significance at which a block is worse than that."""
    better_significance: float = 0.05
    """Significance at which a model that is more expensive to serve is better than a cheaper one."""
    champion_slack: float = 0.01
    """The champion is kept if the new model is worse by more than this."""
    against_champion: bool = True
    """Whether the champion may be kept at all (``GATE_AGAINST_CHAMPION``)."""


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """Mean losses of pieces of origins, the same for every forecast."""

    bounds: tuple[tuple[int, int], ...]
    """First and last (exclusive) position of each piece among the origins."""

    def means(self, losses: FloatArray) -> FloatArray:
        """Return the mean losses (p, H) of the pieces of losses (n, H)."""
        means = [losses[first:last].mean(axis=0) for first, last in self.bounds]
        return np.stack(means) if means else np.zeros((0, losses.shape[1]))


@dataclass(frozen=True, slots=True)
class Comparison:
    """The difference between the losses of two forecasts, and the probability that it is luck."""

    gain: float
    """Share of the reference's mean loss that the forecast saves."""
    p_value: float
    """One-sided, the larger one of the tests on log ratios and on differences."""
    pieces: int


@dataclass(frozen=True, slots=True, eq=False)
class Contest:
    """The losses of a candidate and of the baselines at the same origins, in units of the best baseline's error."""

    losses: FloatArray
    """(n, H) of the candidate, from `horizon_losses`."""
    baselines: Mapping[str, FloatArray]
    """(n, H) by name."""
    rows: IntArray
    """(n,) rows of the origins, increasing."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's result for one candidate."""

    comparison: Comparison | None
    """With the best baseline; None without a score."""
    reasons: tuple[Reason, ...]
    """Why it cannot be promoted; empty if it passes."""


@dataclass(frozen=True, slots=True, eq=False)
class Passing:
    """A candidate that passes the gate, with what decides between several."""

    model_type: str
    serving_cost: tuple[int, int]
    """Lower is cheaper; the second number is in bytes."""
    losses: FloatArray
    """(n, H), all at the same origins."""

    @property
    def cost_class(self) -> tuple[int, int]:
        """The serving cost with the size in units of `COST_BYTES`."""
        kind, size = self.serving_cost
        return kind, size // COST_BYTES

    @property
    def score(self) -> float:
        """Mean of the losses."""
        return float(self.losses.mean())


@dataclass(frozen=True, slots=True)
class Selection:
    """The candidate that is chosen among those that pass."""

    winner: str
    reason: Reason


def cut_pieces(
    rows: IntArray, horizon: int, *, least_pieces: int = LEAST_PIECES, apart_from_all: bool = False
) -> Pieces:
    """Cut origins into floor(n / H) pieces of neighbours, at least H rows long.

    With a short horizon a piece has `LEAST_ORIGINS` origins, but not so many that fewer than ``least_pieces`` pieces
    remain. If the origins are thinned to every k-th row, H / k of them make a piece.

    Parameters
    ----------
    rows : (n,)
        Rows of the origins, increasing.
    horizon : int
        H.
    apart_from_all : bool
        Whether no forecast of other origins covers the rows of these, as those of a fold. Fewer than H origins are one
        piece then; otherwise they are none.
    """
    n = len(rows)
    if n == 0:
        return Pieces(())
    apart = int(np.median(np.diff(rows))) if n > 1 else 1
    least = min(LEAST_ORIGINS, n // least_pieces) if horizon < LEAST_ORIGINS else 1
    length = max(math.ceil(horizon / apart), least)
    pieces = max(n // length, int(apart_from_all))
    edges = np.linspace(0, n, pieces + 1).astype(np.int64).tolist()
    return Pieces(tuple(pairwise(edges)))


def compare(losses: FloatArray, reference: FloatArray) -> Comparison:
    """Test whether a forecast's expected loss is below a reference's, by Student's t over pieces.

    The log ratios weigh each piece alike, the differences weigh pieces by their loss. Both have to show the advantage:
    the first is not decided by one turbulent piece, and the second is the score's own difference.

    Parameters
    ----------
    losses, reference : (p,)
        Mean losses of both forecasts in the same pieces.
    """
    pieces = len(losses)
    if pieces == 0:
        return Comparison(math.nan, 1.0, 0)
    reference_mean = float(reference.mean())
    gain = _gain(float(losses.mean()), reference_mean)
    if not gain > EQUAL:
        return Comparison(gain, 1.0, pieces)
    # A piece without any error has no logarithm; errors far below the mean loss are all alike.
    least = EQUAL * reference_mean
    ratios = np.log(np.maximum(reference, least) / np.maximum(losses, least))
    p_value = max(_upper_tail_of_mean(ratios), _upper_tail_of_mean(reference - losses))
    return Comparison(gain, p_value, pieces)


def judge(
    contest: Contest,
    best: str,
    *,
    closed_form: bool,
    candidates: int,
    rules: GateRules,
    folds: Sequence[Contest] = (),
) -> Verdict:
    """Decide whether a candidate may be promoted.

    Parameters
    ----------
    contest : Contest
        On the held-out rows.
    best : str
        Name of the best baseline.
    closed_form : bool
        Whether the candidate is fitted by a formula. A network that passes on few pieces may do so by luck of its seed.
    candidates : int
        Number of scored candidates. Each is tested at an equal share of the significance (Bonferroni), because the best
        of several candidates without skill is the one with the most luck.
    folds : sequence of Contest
        Of the expanding folds of the training rows; used if the held-out rows give fewer than ``least_pieces``. Each
        gives at least one piece.
    """
    if not len(contest.losses):
        return Verdict(None, (Reason("no_origins", "no held-out row has the horizon after it"),))
    if not np.isfinite(contest.losses).all():
        return Verdict(None, (Reason("not_finite", "its forecasts hold values that are not finite numbers"),))
    parts = [(contest, _cut(contest, rules))]
    if len(parts[0][1].bounds) < rules.least_pieces:
        parts += [(fold, _cut(fold, rules, is_fold=True)) for fold in folds if np.isfinite(fold.losses).all()]
    losses = np.concatenate([pieces.means(part.losses) for part, pieces in parts])
    baselines = {
        name: np.concatenate([pieces.means(part.baselines[name]) for part, pieces in parts])
        for name in contest.baselines
        if all(name in part.baselines for part, _ in parts)
    }
    comparison = compare(losses.mean(axis=1), baselines[best].mean(axis=1))
    # Folds add pieces, but a model that is no better on the held-out rows does not pass because of them.
    held_out = _gain(float(contest.losses.mean()), float(contest.baselines[best].mean()))
    gain = min(held_out, comparison.gain) if comparison.pieces else held_out
    reasons = _gain_reasons(gain, comparison, best, closed_form=closed_form, candidates=candidates, rules=rules)
    if not reasons and rules.min_gain >= 0:
        reasons = _block_reasons(losses, baselines, rules)
    return Verdict(comparison, reasons)


def select(passing: Sequence[Passing], rows: IntArray, rules: GateRules) -> Selection | None:
    """Choose among the candidates that pass: the cheapest to serve of those that no other is significantly better than.

    Sizes count in units of `COST_BYTES`; of equally cheap candidates the one with the lowest score is chosen.

    Parameters
    ----------
    passing : sequence of Passing
        With losses at the same origins.
    rows : (n,)
        Rows of these origins.
    """
    if not passing:
        return None
    pieces = cut_pieces(rows, passing[0].losses.shape[1], least_pieces=rules.least_pieces)
    means = {one.model_type: pieces.means(one.losses).mean(axis=1) for one in passing}
    tests = {
        (better.model_type, worse.model_type): compare(means[better.model_type], means[worse.model_type])
        for better, worse in permutations(passing, 2)
    }
    beaten = {worse for (_, worse), test in tests.items() if test.p_value < rules.better_significance}
    ranked = sorted(passing, key=lambda one: (one.score, one.serving_cost, one.model_type))
    winner = min(
        (one for one in ranked if one.model_type not in beaten),
        key=lambda one: (one.cost_class, one.score, one.serving_cost, one.model_type),
    )
    scored = f"{winner.model_type} scores {winner.score:.4f}"
    if len(ranked) == 1:
        return Selection(winner.model_type, Reason("best_score", f"{scored} and alone passes the gate"))
    first = next(one for one in ranked if one is not winner)
    if winner.score <= first.score:
        text = f"{scored}, the next {first.model_type} {first.score:.4f}"
        return Selection(winner.model_type, Reason("best_score", text))
    p_value = tests[first.model_type, winner.model_type].p_value
    text = (
        f"{scored} and is cheaper to serve than {first.model_type}, which scores {first.score:.4f}; the difference "
        f"could be luck (p = {p_value:.3f})"
    )
    return Selection(winner.model_type, Reason("cheaper_to_serve", text))


def unseen(times: IntArray, *fitted_until: int) -> BoolArray:
    """Return which origins (n,) are after the last row that any of the compared models was fitted on.

    Parameters
    ----------
    times : (n,)
        Epoch seconds of the origins, the rows of the first forecast step.
    *fitted_until : int
        Epoch seconds of the last row that each model was fitted on.
    """
    later: BoolArray = times > max(fitted_until)
    return later


def keep_champion(
    winner: str, losses: FloatArray, champion: str, champion_losses: FloatArray, rules: GateRules
) -> tuple[bool, Reason]:
    """Return whether the champion is kept against the new winner, and why.

    An equal replaces the champion, because it was trained on newer rows. A test would keep an old model until a new one
    is much better.

    Parameters
    ----------
    winner, champion : str
        Model types.
    losses, champion_losses : (n, H)
        At the same origins, on rows that neither was fitted on; n may be 0.
    """
    if not rules.against_champion:
        return False, Reason("champion_not_asked", "GATE_AGAINST_CHAMPION is off: the champion does not defend itself")
    if len(losses) == 0:
        text = "there are no held-out rows that neither the champion nor the new model was fitted on"
        return False, Reason("champion_not_scored", text)
    if not np.isfinite(champion_losses).all():
        return False, Reason("champion_not_finite", "the champion's forecasts of these rows are not finite")
    score, champion_score = float(losses.mean()), float(champion_losses.mean())
    compared = f"{winner} scores {score:.4f}, the champion {champion} {champion_score:.4f}"
    if score > champion_score * (1 + rules.champion_slack):
        return True, Reason("champion_not_beaten", f"{compared}: worse by more than {rules.champion_slack:.0%}")
    if score < champion_score:
        return False, Reason("beats_champion", compared)
    return False, Reason("equals_champion", f"{compared}: worse by no more than {rules.champion_slack:.0%}")


def _cut(contest: Contest, rules: GateRules, *, is_fold: bool = False) -> Pieces:
    return cut_pieces(contest.rows, contest.losses.shape[1], least_pieces=rules.least_pieces, apart_from_all=is_fold)


def _gain(loss: float, reference: float) -> float:
    """Return the share of the reference's loss that is saved."""
    if reference > 0:
        return 1.0 - loss / reference
    return 0.0 if loss == 0 else -math.inf


def _gain_reasons(
    gain: float, test: Comparison, best: str, *, closed_form: bool, candidates: int, rules: GateRules
) -> tuple[Reason, ...]:
    few = test.pieces < rules.least_pieces and rules.min_gain >= 0
    asked = max(rules.min_gain, rules.few_gain) if few else rules.min_gain
    over = f"its gain over {best}, the best baseline, is {gain:.1%}"
    if few and not closed_form:
        text = (
            f"there are {test.pieces} pieces of the length of the horizon, fewer than {rules.least_pieces}: too few to "
            "tell a network's skill from luck"
        )
        return (Reason("too_few_pieces", text),)
    if not gain >= asked:
        name = "that so few held-out rows need" if few and asked > rules.min_gain else "of GATE_MIN_SKILL"
        return (Reason("no_skill", f"{over}, less than the {asked:.1%} {name}"),)
    if rules.min_gain < 0:
        return ()
    level = rules.few_significance if few else rules.significance / max(candidates, 1)
    if not test.p_value < level:
        text = f"{over} and could be luck: p = {test.p_value:.3f} over {test.pieces} pieces, not below {level:.3f}"
        return (Reason("skill_within_noise", text),)
    return ()


def _block_reasons(losses: FloatArray, baselines: Mapping[str, FloatArray], rules: GateRules) -> tuple[Reason, ...]:
    """Return a reason for each block of steps in which losses (p, H) are worse than the best baseline's there."""
    reasons = []
    for block in step_blocks(losses.shape[1]):
        own = _of_block(losses, block)
        name, best = min(
            ((name, _of_block(one, block)) for name, one in baselines.items()), key=lambda at: at[1].mean()
        )
        # Swapped: the test asks whether the baseline, made worse by the slack, is better than the model.
        test = compare((1 + rules.block_slack) * best, own)
        if test.p_value < rules.block_significance:
            worse = f"{own.mean() / best.mean() - 1:.1%} worse than {name}" if best.mean() > 0 else f"worse than {name}"
            steps = f"step {block.text}" if block.first == block.last else f"steps {block.text}"
            text = (
                f"it is {worse} at {steps}, more than {rules.block_slack:.0%} by more than luck: p = {test.p_value:.3f}"
            )
            reasons.append(Reason("worse_block", text))
    return tuple(reasons)


def _of_block(losses: FloatArray, block: StepBlock) -> FloatArray:
    means: FloatArray = losses[:, block.steps].mean(axis=1)
    return means


def _upper_tail_of_mean(values: FloatArray) -> float:
    """Return the p-value of a mean above 0 by Student's t."""
    n, mean = len(values), float(values.mean())
    if n < 2 or mean <= 0:  # noqa: PLR2004 - a variance needs two values
        return 1.0
    error = float(values.std(ddof=1)) / math.sqrt(n)
    return upper_tail(mean / error, n - 1) if error > 0 else 0.0
