from __future__ import annotations

import numpy as np
import pytest

from flts.forecasting.linear.model import path_residuals
from flts.forecasting.linear.table import LinearTable
from flts.forecasting.series import FloatArray
from flts.forecasting.theta.fit import (
    ALPHAS,
    BETAS,
    DRIFTS,
    PHIS,
    NoThetaError,
    ThetaChoice,
    ThetaRows,
    Variant,
    choose_theta,
    solve_theta,
)
from flts.forecasting.theta.model import Adjustment, Part, ThetaModel

HORIZON = 6
NONE, ADDITIVE, MULTIPLICATIVE = Adjustment("none"), Adjustment("additive"), Adjustment("multiplicative")
FACTORS = np.array([1.4, 0.8, 0.6, 1.2])


def rows_of(
    values: FloatArray,
    *,
    seasons: tuple[int, ...] = (),
    observed: FloatArray | None = None,
    segments: list[slice] | None = None,
    positions: FloatArray | None = None,
) -> ThetaRows:
    table = values.reshape(len(values), -1)
    at = np.arange(len(values)) if positions is None else positions
    places = np.stack([at % season for season in seasons], axis=1) if seasons else np.empty((len(at), 0), dtype=int)
    known = np.ones(table.shape, dtype=bool) if observed is None else observed.reshape(table.shape)
    pieces = [slice(0, len(at))] if segments is None else segments
    return ThetaRows(LinearTable(table, known, pieces, seasons, places, np.empty((len(at), 0))), at)


def chosen(rows: ThetaRows, stop: int | None = None) -> ThetaChoice:
    return choose_theta(rows, horizon=HORIZON, stop=stop or len(rows.table), alive=lambda: None)


def one(rows: ThetaRows, adjustment: Adjustment, method: str) -> ThetaModel:
    variant = Variant(adjustment, method)  # type: ignore[arg-type]
    choice = ThetaChoice(HORIZON, (variant,), np.ones((rows.table.columns, 1)))
    return solve_theta(rows, choice, stop=len(rows.table))


def forecast(model: ThetaModel, rows: ThetaRows, after: int) -> FloatArray:
    """Return the forecast (H,) of one column after the row ``after``."""
    length = model.rows_required
    at = np.arange(after + 1 - length, after + 1 + HORIZON)
    places = np.stack([at % season for season in rows.table.seasons], axis=-1) if rows.table.seasons else at[:, None]
    return model(rows.table.values[None, at[:length]], places[None])[0, :, 0]


def walk(count: int, seed: int = 0) -> FloatArray:
    return 50 + np.random.default_rng(seed).normal(size=count).cumsum()


def test_theta_is_smoothing_of_the_window_with_a_drift_of_a_share_of_the_slope() -> None:
    values = walk(80) + 0.3 * np.arange(80)
    rows = rows_of(values)
    model = one(rows, NONE, "theta")
    found = forecast(model, rows, 79)

    slope = np.polyfit(np.arange(80), values, 1)[0]
    drift = found[1] - found[0]
    assert np.diff(found) == pytest.approx(np.full(HORIZON - 1, drift))
    assert min(abs(drift - share * slope) for share in DRIFTS) < 1e-9
    window = values[-model.rows_required :]
    differences = []
    for alpha in ALPHAS:
        level = (window - drift * np.arange(len(window))).mean() - drift
        for value in window:
            level = alpha * value + (1 - alpha) * (level + drift)
        differences.append(abs(level + drift - found[0]))
    assert min(differences) < 1e-9


def test_a_damped_trend_begins_at_the_line_of_the_window() -> None:
    values = walk(80) + 20 * np.sin(np.arange(80) / 15)
    rows = rows_of(values)
    model = one(rows, NONE, "damped")
    found = forecast(model, rows, 79)

    steps = np.diff(found)
    phi = steps[1] / steps[0]
    assert steps[1:] == pytest.approx(phi * steps[:-1])
    assert min(abs(phi - each) for each in PHIS) < 1e-9
    window = values[-model.rows_required :]
    slope, level = np.polyfit(np.arange(1, len(window) + 1), window, 1)
    differences = []
    for alpha in ALPHAS:
        for beta in BETAS:
            state = level, slope
            for value in window:
                after = alpha * value + (1 - alpha) * (state[0] + phi * state[1])
                state = after, beta * (after - state[0]) + (1 - beta) * phi * state[1]
            differences.append(abs(state[0] + phi * state[1] - found[0]))
    assert min(differences) < 1e-9


def test_a_straight_line_is_continued_exactly_also_across_a_gap() -> None:
    positions = np.concatenate([np.arange(40), np.arange(100, 140)])
    rows = rows_of(5.0 + 2 * positions, segments=[slice(0, 40), slice(40, 80)], positions=positions)

    model = solve_theta(rows, chosen(rows), stop=80)

    assert forecast(model, rows, 79) == pytest.approx(5 + 2 * np.arange(140, 146), rel=1e-6)


def test_the_parts_of_a_model_are_reseasonalised_and_added() -> None:
    profile = np.array([[1.0], [-1.0]])
    weights = np.zeros((1, 2, 1))
    weights[0, -1, 0] = 0.5  # half of the last adjusted row
    additive = Part(Adjustment("additive", 1), profile, np.array([0.5]), weights, np.zeros((1, 1)))
    factors = Part(Adjustment("multiplicative", 0), np.array([[2.0], [4.0]]), np.array([0.5]), weights, np.ones((1, 1)))
    model = ThetaModel(np.array([0]), 1, 2, (additive, factors))
    places = np.array([[[0, 0], [1, 1], [0, 0]]])

    # (9 + 1) / 2 + 0.5 * 1 and (8 / 4 / 2 + 1) * 2 for values 7, 8 with a last value of 8.
    assert model(np.array([[[7.0], [8.0]]]), places) == pytest.approx(np.array([[[5.0 + 4.0]]]))
    assert model(np.array([[[7.0], [8.0]]]), places + 9)[0, 0, 0] == pytest.approx(
        (8 + 1) / 2 - 0.5 + (8 / 4 / 2 + 1) * 4
    )


def test_a_season_that_grows_with_the_level_is_multiplicative_and_a_steady_one_additive() -> None:
    at = np.arange(72)
    noise = np.random.default_rng(1).normal(size=72)
    growing = (20 + 2 * at) * FACTORS[at % 4] * (1 + 0.01 * noise)
    steady = 20 + 2 * at + 40 * (FACTORS[at % 4] - 1) + 0.3 * noise
    for values, best in ((growing, MULTIPLICATIVE), (steady, ADDITIVE)):
        rows = rows_of(values, seasons=(4,))
        choice = chosen(rows)
        shares = dict(zip(choice.variants, choice.shares[0], strict=True))
        assert sum(shares[variant] for variant in shares if variant.adjustment == best) > 0.99
        model = solve_theta(rows, choice, stop=66)
        assert np.abs(forecast(model, rows, 65) - values[66:]).mean() < 0.05 * values[66:].mean()


def test_values_that_are_not_all_positive_have_no_factors() -> None:
    values = walk(60)
    assert any(each.adjustment == MULTIPLICATIVE for each in chosen(rows_of(values, seasons=(4,))).variants)
    values[3] = 0.0
    assert not any(each.adjustment == MULTIPLICATIVE for each in chosen(rows_of(values, seasons=(4,))).variants)


def test_units_do_not_matter() -> None:
    at = np.arange(60)
    values = (walk(60) + at) * FACTORS[at % 4]
    rows, scaled = rows_of(values, seasons=(4,)), rows_of(1e6 * values, seasons=(4,))

    assert chosen(scaled).shares == pytest.approx(chosen(rows).shares)
    assert forecast(solve_theta(scaled, chosen(scaled), stop=60), scaled, 59) == pytest.approx(
        1e6 * forecast(solve_theta(rows, chosen(rows), stop=60), rows, 59)
    )


def test_no_later_row_changes_the_choice_or_the_model() -> None:
    values = walk(90)
    changed = values.copy()
    changed[70:] = 1e4

    before, after = rows_of(values, seasons=(4,)), rows_of(changed, seasons=(4,))

    assert (chosen(before, 70).shares == chosen(after, 70).shares).all()
    first, second = (solve_theta(rows, chosen(rows, 70), stop=70) for rows in (before, after))
    assert (forecast(first, before, 69) == forecast(second, after, 69)).all()


def test_nothing_is_fitted_to_an_imputed_cell() -> None:
    values, observed = walk(60), np.ones(60, dtype=bool)
    observed[-1] = False  # in no window that a row follows
    wild = np.append(values[:-1], 1e4)

    for method in ("theta", "damped"):
        unseen, seen = one(rows_of(wild, observed=observed), NONE, method), one(rows_of(wild), NONE, method)
        expected = one(rows_of(values, observed=observed), NONE, method)
        assert unseen.parts[0].weights == pytest.approx(expected.parts[0].weights)
        assert unseen.parts[0].bias == pytest.approx(expected.parts[0].bias)
        assert seen.parts[0].weights[0, -1, 0] != pytest.approx(expected.parts[0].weights[0, -1, 0])


def test_each_column_has_its_own_choice_and_they_do_not_mix() -> None:
    at = np.arange(72)
    line, seasonal = walk(72), 100 + 30 * FACTORS[at % 4] + np.random.default_rng(2).normal(size=72)
    both = rows_of(np.stack([line, seasonal], axis=1), seasons=(4,))

    model = solve_theta(both, chosen(both), stop=72)

    for column, values in enumerate((line, seasonal)):
        alone = rows_of(values, seasons=(4,))
        own = solve_theta(alone, chosen(alone), stop=72)
        places = (np.arange(72 - own.rows_required, 72 + HORIZON) % 4)[None, :, None]
        found = model(both.table.values[None, -own.rows_required :], places)
        assert found[0, :, column] == pytest.approx(own(values[None, -own.rows_required :, None], places)[0, :, 0])


def test_on_random_walks_it_costs_little_against_the_last_value() -> None:
    ratios = []
    for seed in range(5):
        rows = rows_of(walk(160, seed))
        model = solve_theta(rows, chosen(rows, 120), stop=120)
        first, errors = path_residuals(model, rows.table, first=120, stop=160, most=100, whole=True)
        last = rows.table.values[first - 1, 0]
        naive = rows.table.values[first[:, None] + np.arange(HORIZON), 0] - last[:, None]
        ratios.append(np.abs(errors).mean() / np.abs(naive).mean())
    assert np.mean(ratios) < 1.1


def test_too_few_rows_or_too_short_pieces_are_refused() -> None:
    with pytest.raises(NoThetaError, match="at least 16 rows, there are 15"):
        chosen(rows_of(walk(15)))
    pieces = rows_of(walk(20), segments=[slice(at, at + 1) for at in range(20)])
    with pytest.raises(NoThetaError, match="hold no 2 rows in one piece"):
        solve_theta(pieces, chosen(pieces), stop=20)


def test_without_a_fold_all_variants_are_averaged() -> None:
    assert chosen(rows_of(walk(16))).shares == pytest.approx(np.full((1, 2), 0.5))
