from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from flts.errors import SeriesTooShortError
from flts.forecasting.references import ALPHAS, fit_ridge, persistence, season_steps, seasonal_naive
from flts.forecasting.windows import Windows, sliding_windows

DAY, WEEK, HOUR = 86_400, 7 * 86_400, 3_600


def random_windows(rows: int, *, features: int = 5, targets: int = 2, window_steps: int = 4, seed: int = 0) -> Windows:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, features)).cumsum(axis=0) * 0.05 + rng.normal(size=(rows, features)) * 0.1
    return sliding_windows(
        values, values[:, :targets], segments=[slice(0, rows)], window_steps=window_steps, horizon_steps=2
    )


def test_persistence_repeats_the_last_value_before_each_origin() -> None:
    values = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])

    assert persistence(values, np.array([1, 3]), 2).tolist() == [[[1, 10], [1, 10]], [[3, 30], [3, 30]]]


@pytest.mark.parametrize(
    ("step_seconds", "train_rows", "season"),
    [
        (120, 15_927, 720),
        (HOUR, 48, 24),
        (HOUR, 47, None),
        (DAY, 14, 7),
        (DAY, 13, None),
        (7 * HOUR, 10_000, 24),  # a week holds whole steps where a day does not
        (WEEK, 1_000, None),
        (11 * HOUR, 10_000, None),
    ],
)
def test_the_season_is_a_day_else_a_week_if_training_holds_two(
    step_seconds: int, train_rows: int, season: int | None
) -> None:
    assert season_steps(step_seconds, train_rows) == season


def test_seasonal_naive_repeats_the_last_season_also_further_than_one_ahead() -> None:
    values = np.arange(8.0)[:, None]

    forecast = seasonal_naive(values, np.arange(8) * 60, np.array([6, 8]), 7, season_steps=3, step_seconds=60)

    assert forecast[0, :, 0].tolist() == [3, 4, 5, 3, 4, 5, 3]
    assert forecast[1, :, 0].tolist() == [5, 6, 7, 5, 6, 7, 5]


def test_seasonal_naive_finds_rows_by_time_and_falls_back_to_the_last_value() -> None:
    times = np.array([0, 60, 120, 300, 360, 420])
    values = np.array([10.0, 11, 12, 15, 16, 17])[:, None]

    forecast = seasonal_naive(values, times, np.array([6]), 3, season_steps=6, step_seconds=60)

    # Six rows before 480, 540 and 600 s are 120, 180 and 240 s; only the first of these is there.
    assert forecast[0, :, 0].tolist() == [12, 17, 17]


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

    monkeypatch.setattr("flts.forecasting.references.CHUNK_WINDOWS", 37)
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

    assert shapes == [(170, 170)]  # of the real data set's size: a second for all, not for each


def test_no_windows_make_no_ridge() -> None:
    none = random_windows(3)

    with pytest.raises(SeriesTooShortError):
        fit_ridge(none, none)
