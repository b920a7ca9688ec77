"""The losses of a closed form and of the baselines in the expanding folds of the training rows.

They give the gate more pieces where the held-out rows have few. A fold's forecasts do not come from bundles: LINEAR and
THETA are solved again on each fold's rows (`flts.forecasting.folds`), and their forecasts are the mean, also with
``POINT=median``. Prophet, HOLT and the networks have no folds.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from eval_container.domain.gate import Contest
from eval_container.domain.scoring import HeldOut, counted_steps
from eval_container.domain.step_scores import horizon_losses
from flts.forecasting.folds import Fold
from flts.forecasting.series import FloatArray


def fold_contests(folds: Iterable[Fold], best: str, divisors: FloatArray, held_out: HeldOut) -> list[Contest]:
    """Return the losses of each fold, in which the best baseline's mean loss is 1.

    Losses are made as on the held-out rows: scaled by the run's recipe and divided by ``divisors``, so that a step
    counts in a fold as much as it does there. Each fold's losses are then divided by one number, the mean loss of the
    best baseline in the fold. So a fold in which the series is calm counts as much as a turbulent one. In both
    divisions the candidate and the baselines of a fold have the same divisor.

    Parameters
    ----------
    folds : iterable of Fold
    best : str
        The best baseline of the held-out rows. A fold in which it makes no error, or no finite forecast, is left out.
    divisors : (H, m)
        See `eval_container.domain.step_scores.step_divisors`.
    held_out : HeldOut
        The rules by which the held-out rows are scored.
    """
    counted = counted_steps(held_out.scored)[:, None]

    def losses(forecast: FloatArray, fold: Fold) -> FloatArray:
        known = np.isfinite(fold.actual) & counted
        errors = (forecast - fold.actual) / held_out.scale
        return horizon_losses(errors, known, held_out.weights, divisors)

    contests = []
    for fold in folds:
        baselines = {name: losses(forecast, fold) for name, forecast in fold.baselines.items()}
        unit = float(baselines[best].mean()) if best in baselines else np.nan
        if np.isfinite(unit) and unit > 0:
            finite = {name: own / unit for name, own in baselines.items() if np.isfinite(own).all()}
            contests.append(Contest(losses(fold.candidate, fold) / unit, finite, fold.rows))
    return contests
