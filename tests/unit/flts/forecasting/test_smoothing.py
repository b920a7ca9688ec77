from __future__ import annotations

import numpy as np
import pytest

from flts.forecasting.smoothing import damping, remainders, responses, smooth

PARAMETERS = np.array([[0.5, 0.2, 0.9], [0.3, 0.0, 1.0]])


def test_the_recursion_by_hand() -> None:
    level, trend = smooth([np.array([10.0]), np.array([14.0]), np.array([13.0])], PARAMETERS[0])

    # After 14: level 10 + 0.5 * 4 = 12, trend 0.2 * 2 = 0.4. After 13: 12.36 + 0.5 * 0.64, 0.2 * 0.68 + 0.8 * 0.36.
    assert level[0] == pytest.approx(12.68)
    assert trend[0] == pytest.approx(0.424)
    assert damping(PARAMETERS, 3) == pytest.approx(np.array([[0.9, 1.71, 2.439], [1.0, 2.0, 3.0]]))


def test_the_weights_of_rows_and_of_the_start_repeat_the_recursion() -> None:
    rows, start = np.random.default_rng(0).normal(size=6), np.array([3.0, -0.7])

    of_level, of_trend = responses(PARAMETERS, 6)
    begin = remainders(PARAMETERS, 6)

    for number, (alpha, beta, phi) in enumerate(PARAMETERS):
        level, trend = start
        for value in rows:
            before = level
            level = alpha * value + (1 - alpha) * (level + phi * trend)
            trend = beta * (level - before) + (1 - beta) * phi * trend
        assert of_level[number] @ rows + begin[number, 0] @ start == pytest.approx(level)
        assert of_trend[number] @ rows + begin[number, 1] @ start == pytest.approx(trend)
