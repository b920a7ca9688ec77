from __future__ import annotations

import numpy as np
import pytest

from flts.forecasting.series import FloatArray
from nonML_container.domain.correction import (
    Held,
    corrected_errors,
    correction_weights,
    span_means,
    spans_within,
)

HORIZON = 5


def held(residuals: FloatArray, first: int = 20, *, known: FloatArray | None = None, gap: int | None = None) -> Held:
    rows = np.arange(1, len(residuals) + 1)
    unbroken = rows if gap is None else np.where(rows > gap, rows - gap, rows)
    return Held(residuals, np.ones(len(rows), dtype=bool) if known is None else known, unbroken, first)


def autoregression(rho: float, rows: int, seed: int) -> FloatArray:
    noise = np.random.default_rng(seed).normal(size=rows)
    for row in range(1, rows):
        noise[row] += rho * noise[row - 1]
    return noise


def test_the_weight_of_the_last_residual_of_an_autoregression_decays_as_its_autocorrelation() -> None:
    folds = [held(autoregression(0.8, 4_000, seed)) for seed in range(3)]

    weights = correction_weights(folds, (1,), HORIZON)

    assert weights[0] == pytest.approx(0.8 ** np.arange(1, HORIZON + 1), abs=0.05)


def test_a_level_that_residuals_scatter_around_is_read_from_their_mean() -> None:
    def shifted(seed: int) -> FloatArray:
        return np.random.default_rng(seed).normal(size=1_000) + (-1) ** seed * 3.0

    weights = correction_weights([held(shifted(seed)) for seed in range(4)], (1, 16), HORIZON)

    assert weights.sum(axis=0) == pytest.approx(np.full(HORIZON, 1.0), abs=0.05)
    assert (weights[1] > 0.8).all()


def test_white_noise_one_fold_and_folds_that_disagree_are_not_corrected() -> None:
    noise = [held(np.random.default_rng(seed).normal(size=400)) for seed in range(3)]
    slow = autoregression(0.9, 400, 1)
    alternating = autoregression(-0.9, 400, 1)

    assert (correction_weights(noise, (1, 4), HORIZON) == 0).all()
    assert (correction_weights([held(slow)], (1,), HORIZON) == 0).all()
    assert (correction_weights([held(slow), held(alternating)], (1,), HORIZON)[0, [0, 2, 4]] == 0).all()


def test_errors_by_hand_leave_out_missing_cells_gaps_and_rows_after_the_last() -> None:
    residuals = np.array([9.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    known = np.array([True, True, True, False, True, True])
    weights = np.array([[0.5, 0.25]])

    errors = corrected_errors(held(residuals, 2, known=known), (1,), weights)
    apart = corrected_errors(held(residuals, 2, gap=4), (1,), weights)
    wide = corrected_errors(held(residuals, 2), (1, 3), np.array([[0.0, 0.0], [1.0, 0.0]]))

    # Rows 2 to 5 are forecast from the residuals 1, 2, 3 and 4.
    nan = np.nan
    np.testing.assert_allclose(errors, [[1.5, nan], [nan, 3.5], [2.5, 4.25], [3.0, nan]])
    np.testing.assert_allclose(apart, [[1.5, 2.75], [2.0, nan], [nan, nan], [3.0, nan]])
    np.testing.assert_allclose(wide[:, 0], [3 - 4.0, 4 - 2.0, 5 - 3.0])  # means of 9, 1, 2 and so on


def test_spans_need_rows_and_their_means_are_of_the_last_rows() -> None:
    assert (spans_within(30), spans_within(115), spans_within(10_000)) == ((), (1,), (1, 4, 16, 64))
    assert span_means((1, 4)).tolist() == [[0, 0.25], [0, 0.25], [0, 0.25], [1, 0.25]]
