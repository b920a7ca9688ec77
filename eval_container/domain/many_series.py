"""The figures of many series on the scoreboard: their distribution, and the worst series one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval_container.domain.promotion import Candidate
from eval_container.domain.scoring import Scorecard

MOST_SHOWN, WORST = 40, 20
"""Series that the scoreboard shows one by one at most, and how many of more: the worst ones."""
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Shares of the series whose score is below the quantile."""


@dataclass(frozen=True, slots=True)
class ManySeries:
    """The series of a run that are too many to be shown one by one."""

    targets: tuple[str, ...]
    shown: tuple[str, ...]
    """Those whose figures the scoreboard has, the worst first."""

    def of(self, card: Scorecard) -> dict[str, Any]:
        """Return a contender's figures: ``table`` and ``coverage`` of the shown series, and all series in short.

        ``better`` is the number of series with a score below 1, which is the best baseline's mean.
        """
        short: dict[str, Any] = {"scored": 0, "better": 0, "quantiles": {}, "worst": {}}
        if card.by_target is not None:
            known = card.by_target[np.isfinite(card.by_target)]
            scores = dict(zip(self.targets, card.by_target.tolist(), strict=True))
            short = {
                "scored": len(known),
                "better": int((known < 1).sum()),
                "quantiles": dict(zip(map(str, SHARES), np.quantile(known, SHARES).tolist(), strict=True))
                if len(known)
                else {},
                "worst": {name: scores[name] if np.isfinite(scores[name]) else None for name in self.shown},
            }
        shown = frozenset(self.shown)
        return {
            "table": [dict(row) for row in card.table if row["target"] in shown],
            "coverage": [dict(row) for row in card.coverage if row["target"] in shown],
            "series": short,
        }


def many_series(targets: tuple[str, ...], winner: str | None, contenders: Sequence[Candidate]) -> ManySeries | None:
    """Return the series of a run with those of the winner's highest scores, or None for at most `MOST_SHOWN`."""
    if len(targets) <= MOST_SHOWN:
        return None
    scored = {one.model_type: one.card.by_target for one in contenders if one.card and one.card.by_target is not None}
    scores = scored.get(winner or "", next(iter(scored.values()), np.zeros(len(targets))))
    worst = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), kind="stable")[:WORST]
    return ManySeries(targets, tuple(targets[at] for at in worst.tolist()))
