from __future__ import annotations

import numpy as np
import pytest

from eval_container.domain.combining import combined_weights
from eval_container.domain.step_scores import StepBlock, step_blocks
from flts.forecasting.series import FloatArray

SCORE_WEIGHTS = (0.5, 0.3, 0.2)
FEW, MANY = 20, 400


def noise(*sizes: float, origins: int = FEW, horizon: int = 3, seed: int = 0) -> FloatArray:
    """Return errors (k, n, H, 1) with these deviations, the same normal scores for every member."""
    scores = np.random.default_rng(seed).standard_normal((origins, horizon, 1))
    return np.array(sizes)[:, None, None, None] * scores


def test_members_near_the_best_have_equal_weights() -> None:
    weights = combined_weights(noise(1.0, 1.05, 1.2), step_blocks(3), SCORE_WEIGHTS)
    assert np.allclose(weights[:, :, 0].T, [0.5, 0.5, 0.0])


def test_each_block_and_target_chooses_for_itself() -> None:
    near, far = noise(1.0, 3.0), noise(3.0, 1.0, seed=1)
    errors = np.concatenate([near, far], axis=3)
    errors[:, :, 1:] = errors[::-1, :, 1:]
    weights = combined_weights(errors, (StepBlock(1, 1), StepBlock(2, 3)), SCORE_WEIGHTS)
    assert weights[0].tolist() == [[1, 0], [0, 1], [0, 1]]
    assert weights.sum(axis=0) == pytest.approx(np.ones((3, 2)))


def test_fitted_weights_win_where_errors_cancel() -> None:
    # The second member repeats a tenth of the first one's error with the other sign and has noise of its own.
    rng = np.random.default_rng(2)
    common = rng.standard_normal((MANY, 1, 1))
    errors = np.stack([common, -0.9 * common + 0.1 * rng.standard_normal(common.shape), 5 * np.abs(common)])
    [weights] = combined_weights(errors, (StepBlock(1, 1),), SCORE_WEIGHTS).transpose(1, 2, 0)[0]
    assert weights == pytest.approx([0.47, 0.53, 0.0], abs=0.02)


def test_few_errors_fit_no_weights() -> None:
    rng = np.random.default_rng(2)
    common = rng.standard_normal((FEW, 1, 1))
    errors = np.stack([common, -0.95 * common])
    assert combined_weights(errors, (StepBlock(1, 1),), SCORE_WEIGHTS)[:, 0, 0].tolist() == [0.5, 0.5]


def test_independent_errors_of_equal_size_are_averaged() -> None:
    errors = np.random.default_rng(3).standard_normal((3, MANY, 2, 1))
    weights = combined_weights(errors, (StepBlock(1, 2),), SCORE_WEIGHTS)
    assert weights[:, 0, 0] == pytest.approx(np.full(3, 1 / 3), abs=0.1)


def test_a_block_without_errors_has_the_weights_of_the_one_before() -> None:
    errors = noise(1.0, 3.0)
    errors[:, :, 1:] = np.nan
    weights = combined_weights(errors, (StepBlock(1, 1), StepBlock(2, 3)), SCORE_WEIGHTS)
    assert weights[:, :, 0].T.tolist() == [[1, 0]] * 3


def test_an_origin_from_which_one_member_has_no_forecast_counts_for_none() -> None:
    errors = noise(1.0, 3.0)
    errors[1, 0] = np.nan
    errors[0, 0] = 1e6
    assert combined_weights(errors, step_blocks(3), SCORE_WEIGHTS)[:, 0, 0].tolist() == [1, 0]
