"""The gate: the conditions for a promotion, and the test that separates skill from chance.

``docs/decisions/0002-gate.md`` explains the rule and its cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
EVENT_CHARACTERS = 300
"""Most characters of a reason in an event; twelve such reasons fit into a message in any alphabet."""

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

    min_skill: float = 0.0
    """Least skill against persistence; below 0 the test of significance is off."""
    significance: float = 0.02
    """Probability that a run has a candidate that passes without skill."""
    against_champion: bool = True
    """Whether the current champion is kept unless a candidate beats it."""


@dataclass(frozen=True, slots=True)
class Advantage:
    """The difference between the losses of two forecasts, and the probability that it is luck."""

    mean: float
    """Mean difference of the losses; positive if the first forecast is better."""
    p_value: float
    """One-sided: the probability of such a mean if there were no advantage."""
    origins: int


def skill(score: float, persistence_score: float) -> float:
    """Return ``1 - score / score(persistence)``; if persistence makes no error, 0 for a score of 0, else -infinity."""
    if persistence_score == 0:
        return 0.0 if score == 0 else -math.inf
    return 1.0 - score / persistence_score


def advantage(losses: FloatArray, reference_losses: FloatArray, *, horizon_steps: int) -> Advantage:
    """Test whether a forecast's expected loss is below a reference's (Diebold and Mariano, 1995; one-sided).

    The variance of the mean difference is Newey and West's (1987), because errors of neighbouring origins are
    correlated. The statistic has Harvey, Leybourne and Newbold's (1997) correction for few origins and is compared with
    Student's t.

    Parameters
    ----------
    losses, reference_losses : (n,)
        Loss of both forecasts at the same origins, in order of time.
    horizon_steps : int
        Steps ahead that a loss covers; the forecasts of two origins closer than this overlap.
    """
    differences = reference_losses - losses
    n = len(differences)
    mean = float(differences.mean()) if n else math.nan
    overlap = (n + 1 - 2 * horizon_steps + horizon_steps * (horizon_steps - 1) / n) / n if n else 0.0
    if n < 2 or overlap <= 0 or not math.isfinite(mean):  # noqa: PLR2004 - a variance needs two values
        return Advantage(mean, 1.0, n)
    if mean <= EQUAL * float(np.abs(reference_losses).mean()):
        return Advantage(mean, 1.0, n)
    variance = long_run_variance(differences, lags=_lags(n, horizon_steps)) / n
    if variance == 0:
        return Advantage(mean, 0.0, n)
    statistic = mean / math.sqrt(variance) * math.sqrt(overlap)
    return Advantage(mean, student_upper_tail(statistic, n - 1), n)


def long_run_variance(values: FloatArray, *, lags: int) -> float:
    """Return the variance of ``sqrt(n) * mean`` for values that depend on their neighbours (Bartlett weights)."""
    centred = values - values.mean()
    n = len(values)
    total = float(centred @ centred) / n
    for lag in range(1, lags + 1):
        total += 2.0 * (1.0 - lag / (lags + 1)) * float(centred[lag:] @ centred[:-lag]) / n
    return max(total, 0.0)


def student_upper_tail(statistic: float, degrees: int) -> float:
    """Return P(T > statistic) for Student's t, by Wallace's (1959) normal approximation (error below 0.002)."""
    size = (8 * degrees + 1) / (8 * degrees + 3) * math.sqrt(degrees * math.log1p(statistic * statistic / degrees))
    tail = 0.5 * math.erfc(size / math.sqrt(2))
    return tail if statistic >= 0 else 1.0 - tail


def skill_reasons(
    score: float,
    persistence_score: float,
    test: Advantage | None,
    *,
    rules: GateRules,
    candidates: int,
) -> tuple[Reason, ...]:
    """Return the reasons against a promotion; empty if the score passes the gate.

    Parameters
    ----------
    test : Advantage, optional
        Advantage over persistence, whose losses are first multiplied by ``1 - rules.min_skill``; not used if
        ``rules.min_skill`` is below 0.
    candidates : int
        Number of scored candidates. Each is tested at an equal share of the significance (Bonferroni), because the best
        of several candidates without skill is the one with the most luck.
    """
    if not math.isfinite(score):
        return (Reason("not_finite", "its forecasts hold values that are not finite numbers"),)
    shown = skill(score, persistence_score)
    if shown < rules.min_skill:
        return (
            Reason(
                "no_skill",
                f"its skill against persistence is {shown:.4f}, less than the {rules.min_skill:g} of GATE_MIN_SKILL",
            ),
        )
    if rules.min_skill < 0:
        return ()
    level = rules.significance / max(candidates, 1)
    if test is None or test.p_value > level:
        p_value = 1.0 if test is None else test.p_value
        return (
            Reason(
                "skill_within_noise",
                f"its skill of {shown:.4f} could be luck: p = {p_value:.3f} over {0 if test is None else test.origins} "
                f"origins, above {level:.3f}",
            ),
        )
    return ()


def _lags(n: int, horizon_steps: int) -> int:
    """Return the number of lags: the overlap of the forecasts, or Newey and West's rule of thumb if that is larger."""
    rule_of_thumb = math.floor(4 * (n / 100) ** (2 / 9))
    return int(min(max(horizon_steps - 1, rule_of_thumb), n - 1))
