"""Choose the weights of a combination from the errors that its members made on rows they were not fitted on.

Means of a few good forecasts win competitions (Makridakis et al., The M4 Competition, 2020), and fitted weights often
lose to them (Claeskens et al., The forecast combination puzzle, 2016). So the plain mean of the good members is the
rule, and fitted weights have to win on errors that they were not fitted on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eval_container.domain.step_scores import StepBlock
from flts.forecasting.series import BoolArray, FloatArray

NEAR_BEST = 1.10
"""A member is used if its error is at most this many times the best one's in the block."""
LEAST_FITTED = 64
"""Errors of a block and target, on either side of the cut, from which weights are fitted."""
LEAST_GAIN = 0.02
"""Share of the squared error that fitted weights must save on the errors that they were not fitted on."""
ROUNDS, SETTLED = 500, 1e-9


def combined_weights(
    errors: FloatArray, blocks: Sequence[StepBlock], score_weights: tuple[float, float, float]
) -> FloatArray:
    """Return the weights (k, H, m) of k members.

    Per block of steps and target the members within 10 % of the best error have equal weights. Non-negative weights
    that are fitted on one half of the origins replace them if they save 2 % of the squared error on the other half,
    both ways round; they are then fitted on all origins. Where no member has an error, the weights of the nearest
    earlier block are used.

    Parameters
    ----------
    errors : (k, n, H, m)
        Scaled errors of the members from n origins in time order; NaN where a member or the actual value is missing.
    blocks : sequence of StepBlock
        Without overlap, from step 1 to H.
    score_weights : (3,)
        Of RMSE, MAE and MSE (``SCORE_WEIGHTS``).
    """
    members, _, horizon, targets = errors.shape
    weights = np.zeros((members, horizon, targets))
    known = ~np.isnan(errors.sum(axis=0))
    before = np.full((members, targets), 1 / members)
    for block in blocks:
        for target in range(targets):
            used = known[:, block.steps, target]
            if used.any():
                before[:, target] = _of_block(errors[:, :, block.steps, target], used, score_weights)
        weights[:, block.steps] = before[:, None]
    return weights


def _of_block(errors: FloatArray, known: BoolArray, score_weights: tuple[float, float, float]) -> FloatArray:
    """Return the weights (k,) of errors (k, n, s), known in the cells (n, s)."""
    near = _equal(errors[:, known], score_weights)
    half = len(known) // 2
    first, second = (errors[:, rows][:, known[rows]] for rows in (slice(None, half), slice(half, None)))
    if min(first.shape[1], second.shape[1]) < LEAST_FITTED:
        return near
    for fitted, judged in ((first, second), (second, first)):
        own, rule = _fitted(fitted), _equal(fitted, score_weights)
        if not np.square(own @ judged).mean() <= (1 - LEAST_GAIN) * np.square(rule @ judged).mean():
            return near
    return _fitted(errors[:, known])


def _equal(errors: FloatArray, score_weights: tuple[float, float, float]) -> FloatArray:
    """Return equal weights (k,) of the members whose error (k, n) is near the best one's."""
    by_rmse, by_mae, by_mse = score_weights
    mse = np.square(errors).mean(axis=1)
    loss = by_rmse * np.sqrt(mse) + by_mae * np.abs(errors).mean(axis=1) + by_mse * mse
    near = (loss <= NEAR_BEST * loss.min()).astype(np.float64)
    weights: FloatArray = near / near.sum()
    return weights


def _fitted(errors: FloatArray) -> FloatArray:
    """Return the non-negative weights (k,) with the sum 1 that minimise the squared error of the weighted sum.

    Frank and Wolfe's steps between the present weights and one member; the minimum of a step is known in closed form.
    """
    products = errors @ errors.T
    weights = np.full(len(errors), 1 / len(errors))
    for _ in range(ROUNDS):
        gradient = products @ weights
        towards = -weights
        towards[int(np.argmin(gradient))] += 1
        curve = float(towards @ products @ towards)
        slope = float(gradient @ towards)
        if not curve > 0 or slope > -SETTLED * float(weights @ gradient):
            break
        weights = weights + min(1.0, -slope / curve) * towards
    return weights
