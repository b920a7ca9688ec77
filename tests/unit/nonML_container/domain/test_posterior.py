from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prophet import Prophet

from flts.model_settings import ProphetSettings
from nonML_container.domain.fit import fit_prophet, predict
from nonML_container.domain.posterior import (
    NOISE_DEVIATION,
    TREND_DEVIATION,
    NotConvergedError,
    Parameters,
    Problem,
    most_likely,
    sparse_minimum,
)

START = 1_700_000_000 // 86_400 * 86_400


def by_brute_force(quadratic: np.ndarray, linear: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Return the minimum over every combination of signs."""
    best, best_value = np.zeros(len(linear)), 0.0
    for signs in itertools.product((-1.0, 0.0, 1.0), repeat=len(linear)):
        sign = np.array(signs)
        at = np.flatnonzero((sign != 0) | (penalty == 0))
        x = np.zeros(len(linear))
        if len(at):
            x[at] = np.linalg.solve(quadratic[np.ix_(at, at)], linear[at] - penalty[at] * sign[at])
        value = float(x @ quadratic @ x / 2 - linear @ x + penalty @ np.abs(x))
        if value < best_value:
            best, best_value = x, value
    return best


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.floats(0, 30))
def test_the_sparse_minimum_is_the_best_of_all_signs(seed: int, size: int, weight: float) -> None:
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(size + 3, size))
    quadratic, linear = factor.T @ factor, rng.normal(size=size) * 10
    penalty = weight * rng.integers(0, 2, size)

    found = sparse_minimum(quadratic, linear, penalty, rng.normal(size=size))

    assert found == pytest.approx(by_brute_force(quadratic, linear, penalty), abs=1e-7)


def problem_of(seed: int, rows: int = 300) -> Problem:
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, rows)
    features = np.stack([wave(2 * np.pi * turns * t) for turns in (3, 7) for wave in (np.sin, np.cos)], axis=1)
    bend = np.maximum(t - 0.42, 0)
    y = 0.3 + 0.2 * t - 0.9 * bend + features @ [0.1, 0.05, 0.0, -0.1] + rng.normal(0, 0.03, rows)
    return Problem(t, y, np.linspace(0, 0.8, 26)[1:], features, np.full(4, 10.0), 0.05)


def negative_log_posterior(problem: Problem, parameters: Parameters) -> float:
    """Return the negative logarithm of the posterior density of prophet.stan, without its constants."""
    ramps = np.maximum(problem.t[:, None] - problem.changes, 0.0)
    trend = parameters.rate * problem.t + parameters.offset + ramps @ parameters.changes
    errors = problem.y - trend - problem.features @ parameters.weights
    noise = parameters.noise
    return float(
        errors @ errors / (2 * noise**2)
        + len(errors) * np.log(noise)
        + np.abs(parameters.changes).sum() / problem.change_scale
        + (parameters.rate**2 + parameters.offset**2) / (2 * TREND_DEVIATION**2)
        + np.sum((parameters.weights / problem.deviations) ** 2) / 2
        + (noise / NOISE_DEVIATION) ** 2 / 2
    )


@pytest.mark.parametrize("seed", range(5))
def test_no_step_away_from_the_maximum_is_more_likely(seed: int) -> None:
    problem = problem_of(seed)
    found = most_likely(problem)
    least = negative_log_posterior(problem, found)
    rng = np.random.default_rng(seed)

    for size in (1e-5, 1e-3, 1e-1):
        for _ in range(50):
            moved = Parameters(
                found.rate + size * rng.normal(),
                found.offset + size * rng.normal(),
                found.changes + size * rng.normal(size=25) * rng.integers(0, 2, 25),
                found.weights + size * rng.normal(size=4),
                abs(found.noise + 0.1 * size * rng.normal()),
            )
            assert negative_log_posterior(problem, moved) > least
    assert 0 < np.count_nonzero(found.changes) < 25


def test_a_series_without_noise_is_fitted_without_overflow() -> None:
    t = np.linspace(0, 1, 100)
    found = most_likely(Problem(t, 0.5 * t, np.array([0.5]), np.zeros((100, 1)), np.array([1.0]), 0.05))

    assert found.rate == pytest.approx(0.5, abs=1e-6)
    assert np.isfinite(found.noise)


def test_numbers_that_cannot_be_solved_for_are_said_so() -> None:
    t = np.linspace(0, 1, 10)
    with pytest.raises(NotConvergedError):
        most_likely(Problem(t, np.full(10, np.nan), np.array([0.5]), np.zeros((10, 1)), np.array([1.0]), 0.05))


def test_prophet_with_the_exact_optimum_is_at_least_as_likely_as_with_its_own_search() -> None:
    rng = np.random.default_rng(0)
    times = START + 3600 * np.arange(24 * 28)
    cycle = np.sin(2 * np.pi * times / 86_400)
    values = 50 + 10 * cycle + np.where(np.arange(len(times)) > 400, 0.02, 0.0) * (np.arange(len(times)) - 400)
    values = values + rng.normal(0, 2, len(times))

    exact, stan = (fit_prophet(times, values, ProphetSettings(), optimiser) for optimiser in ("exact", "stan"))

    inputs = inputs_of(times, values)
    exact_value, stan_value = (negative_log_posterior(inputs, parameters_of(model)) for model in (exact, stan))
    assert exact_value <= stan_value + 1e-6 * abs(stan_value)
    difference = np.abs(predict(exact, times) - predict(stan, times)).max()
    assert difference < 0.05 * np.ptp(values)


def inputs_of(times: np.ndarray, values: np.ndarray) -> Problem:
    """Return the problem with the arrays that Prophet itself prepares."""
    data = Prophet().preprocess(pd.DataFrame({"ds": pd.to_datetime(times, unit="s"), "y": values}))
    arrays = (np.asarray(part, dtype=np.float64) for part in (data.t, data.y, data.t_change, data.X, data.sigmas))
    return Problem(*arrays, change_scale=data.tau)


def parameters_of(model: Prophet) -> Parameters:
    params = {name: np.ravel(value) for name, value in model.params.items()}
    return Parameters(params["k"][0], params["m"][0], params["delta"], params["beta"], float(params["sigma_obs"][0]))
