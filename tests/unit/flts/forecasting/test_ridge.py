from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from flts.errors import SeriesTooShortError
from flts.forecasting.ridge import ALPHAS, fit_ridge
from flts.forecasting.windows import Windows, sliding_windows


def random_windows(rows: int, *, features: int = 5, targets: int = 2, window_steps: int = 4, seed: int = 0) -> Windows:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, features)).cumsum(axis=0) * 0.05 + rng.normal(size=(rows, features)) * 0.1
    return sliding_windows(
        values, values[:, :targets], segments=[slice(0, rows)], window_steps=window_steps, horizon_steps=2
    )


@pytest.mark.parametrize("alpha", [0.01, 1.0, 100.0])
def test_ridge_is_scikit_learn_s_ridge(alpha: float) -> None:
    fit, stop = random_windows(300), random_windows(80, seed=1)
    flat = fit.inputs.reshape(len(fit), -1).astype(float)
    model = Ridge(alpha=alpha).fit(flat, fit.targets.reshape(len(fit), -1).astype(float))

    ours = fit_ridge(fit, stop, alphas=(alpha,))

    np.testing.assert_allclose(ours.coefficients, model.coef_.T, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(ours.intercept, model.intercept_, rtol=1e-8, atol=1e-10)
    expected = model.predict(stop.inputs.reshape(len(stop), -1).astype(float)).reshape(stop.targets.shape)
    np.testing.assert_allclose(ours(stop.inputs), expected, rtol=1e-8, atol=1e-10)


def test_each_output_has_the_penalty_with_its_least_error_on_the_stopping_windows() -> None:
    fit, stop = random_windows(60), random_windows(80, seed=1)

    errors = np.array(
        [
            np.square(fit_ridge(fit, stop, alphas=(alpha,))(stop.inputs) - stop.targets).mean(axis=0).ravel()
            for alpha in ALPHAS
        ]
    )
    chosen = fit_ridge(fit, stop)

    np.testing.assert_array_equal(chosen.alphas, np.array(ALPHAS)[errors.argmin(axis=0)])
    assert len(set(chosen.alphas.tolist())) > 1
    np.testing.assert_allclose(chosen.stop_mse, errors.min(axis=0))
    found = np.square(chosen(stop.inputs) - stop.targets).mean(axis=0).ravel()
    np.testing.assert_allclose(found, errors.min(axis=0))


def test_a_target_s_reference_does_not_depend_on_the_other_targets() -> None:
    fit, stop = random_windows(60), random_windows(80, seed=1)
    fit_alone, stop_alone = (Windows(part.inputs, part.targets[:, :, 1:], part.target_rows) for part in (fit, stop))

    together = fit_ridge(fit, stop)(stop.inputs)[:, :, 1:]

    np.testing.assert_allclose(together, fit_ridge(fit_alone, stop_alone)(stop.inputs), rtol=1e-9)


def test_chunks_of_windows_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    fit, stop = random_windows(300), random_windows(80, seed=1)
    whole = fit_ridge(fit, stop)

    monkeypatch.setattr("flts.forecasting.ridge.CHUNK_WINDOWS", 37)
    parts = fit_ridge(fit, stop)

    np.testing.assert_array_equal(parts.alphas, whole.alphas)
    np.testing.assert_allclose(parts.coefficients, whole.coefficients, rtol=1e-9, atol=1e-12)


def test_columns_that_say_the_same_or_nothing_do_not_disturb_ridge() -> None:
    rng = np.random.default_rng(0)
    value = rng.normal(size=300)
    rows = np.column_stack([value, value, np.zeros(300)])
    windows = sliding_windows(rows, rows[:, :1], segments=[slice(0, 300)], window_steps=3, horizon_steps=1)

    model = fit_ridge(windows, windows)

    assert np.isfinite(model.coefficients).all()
    assert np.abs(model.coefficients).max() < 10


def test_one_decomposition_serves_all_penalties_of_ridge(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).random((14_334, 17))
    fit, stop = (
        sliding_windows(
            rows,
            rows[:, :11],
            segments=[slice(0, len(rows))],
            window_steps=10,
            horizon_steps=1,
            first_target_row=first,
            last_target_row=last,
        )
        for first, last in ((0, 12_741), (12_741, 14_334))
    )

    shapes: list[tuple[int, ...]] = []
    eigh = np.linalg.eigh

    def counted(matrix: np.ndarray) -> object:
        shapes.append(matrix.shape)
        return eigh(matrix)

    monkeypatch.setattr(np.linalg, "eigh", counted)

    fit_ridge(fit, stop)

    assert shapes == [(170, 170)]  # a single call: one eigendecomposition serves all penalties


def test_no_windows_make_no_ridge() -> None:
    none = random_windows(3)

    with pytest.raises(SeriesTooShortError):
        fit_ridge(none, none)
