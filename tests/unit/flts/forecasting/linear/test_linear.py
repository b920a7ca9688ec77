from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flts.forecasting.linear.choice import OWN_COLUMNS, decide, step_buckets
from flts.forecasting.linear.fit import choose_linear, fit_linear, solve_linear, tail_residuals
from flts.forecasting.linear.kinds import LONGEST_LAG, Base, kinds_of
from flts.forecasting.linear.model import LinearModel, path_residuals
from flts.forecasting.linear.stopping import StoppingTail
from flts.forecasting.linear.table import LinearTable, NoLinearError
from flts.forecasting.series import FloatArray


def table_of(values: FloatArray, *, seasons: tuple[int, ...] = (), clock: FloatArray | None = None) -> LinearTable:
    rows = np.arange(len(values))
    return LinearTable(
        values,
        np.ones(values.shape, dtype=bool),
        [slice(0, len(values))],
        seasons,
        np.stack([rows % season for season in seasons], axis=1) if seasons else np.empty((len(rows), 0), np.int64),
        np.empty((len(rows), 0)) if clock is None else clock,
    )


def fit(table: LinearTable, horizon: int) -> LinearModel:
    rows = len(table)
    return fit_linear(table, horizon=horizon, fit_stop=rows * 8 // 10, stop_stop=rows * 9 // 10).model


def noisy(rows: int, columns: int, *, seed: int = 0) -> FloatArray:
    rng = np.random.default_rng(seed)
    wave = np.sin(2 * np.pi * np.arange(rows) / 12)[:, None] * rng.uniform(0.5, 2, columns)
    return wave + 0.2 * rng.normal(size=(rows, columns)).cumsum(axis=0) + 0.3 * rng.normal(size=(rows, columns))


def numbers(model: LinearModel) -> list[bytes]:
    found = [model.bias, model.mean, model.scale, model.clock_weights, model.other_weights]
    for part in model.parts:
        found += [part.weights, part.share, part.profile, part.bias, part.clock_weights]
    return [array.tobytes() for array in found if array is not None]


def test_a_recurrence_without_noise_is_recovered() -> None:
    values = np.empty((600, 1))
    values[:2, 0] = 1.0, 0.7
    for row in range(2, 600):
        values[row] = 1.6 * values[row - 1] - 0.9999 * values[row - 2]  # a wave that hardly decays
    table = table_of(values)

    rows, residuals = path_residuals(fit(table, 6), table, first=560, stop=600, most=50)

    assert len(rows) == 40
    assert np.nanmax(np.abs(residuals)) < 0.01 * values.std()


def test_a_season_without_noise_is_repeated() -> None:
    season = np.random.default_rng(1).normal(size=(7, 1))
    table = table_of(np.tile(season, (60, 1)), seasons=(7,))

    _, residuals = path_residuals(fit(table, 20), table, first=380, stop=420, most=50)

    assert np.nanmax(np.abs(residuals)) < 1e-3


def test_a_season_that_no_window_can_reach_back_has_a_profile_only() -> None:
    kinds = kinds_of((LONGEST_LAG, LONGEST_LAG + 1), fit_rows=10 * LONGEST_LAG, own=True, others=False, shared=False)

    assert [kind.base for kind in kinds] == [Base("none"), Base("profile", 1), Base("lag", 0)]


def test_residuals_of_some_steps_are_those_of_all_steps_there() -> None:
    table = table_of(noisy(500, 2), seasons=(12,))
    model = fit(table, 20)

    rows, every = path_residuals(model, table, first=400, stop=450, most=30)
    chosen, some = path_residuals(model, table, first=400, stop=450, most=30, steps=np.array([1, 7, 20]))

    np.testing.assert_array_equal(chosen, rows)
    np.testing.assert_array_equal(some, every[:, [0, 6, 19]])


def test_the_same_rows_give_the_same_bytes() -> None:
    table = table_of(noisy(500, 3), seasons=(12,))

    assert numbers(fit(table, 15)) == numbers(fit(table, 15))


def test_the_value_of_an_imputed_cell_changes_nothing() -> None:
    values = noisy(600, 2)
    observed = np.ones((600, 2), dtype=bool)
    observed[[200, 201, 500, 575], 0] = False
    changed = values.copy()
    changed[~observed] = 1e3

    one, other = (replace(table_of(each, seasons=(12,)), observed=observed) for each in (values, changed))

    assert numbers(fit(one, 10)) == numbers(fit(other, 10))


def test_rows_from_the_stop_on_change_nothing() -> None:
    values = noisy(500, 2)
    changed = values.copy()
    changed[450:] += 100
    one, other = table_of(values, seasons=(12,)), table_of(changed, seasons=(12,))

    choices = [choose_linear(table, horizon=10, fit_stop=400, stop_stop=450) for table in (one, other)]
    models = [solve_linear(table, choice, stop=450) for table, choice in zip((one, other), choices, strict=True)]

    assert numbers(models[0]) == numbers(models[1])


def test_a_gap_separates_what_is_on_its_sides() -> None:
    values = noisy(600, 1)
    whole = table_of(values)
    split = replace(whole, segments=[slice(0, 300), slice(300, 600)])

    assert numbers(fit(whole, 10)) != numbers(fit(split, 10))
    shorter = fit(replace(whole, segments=[slice(at, at + 30) for at in range(0, 600, 30)]), 5)
    assert shorter.window < fit(whole, 5).window


def test_residuals_are_those_of_the_fit_rows_on_the_stopping_tail() -> None:
    table = table_of(noisy(500, 2), seasons=(12,))
    choice = choose_linear(table, horizon=10, fit_stop=400, stop_stop=450)

    rows, residuals = tail_residuals(table, choice)

    assert (rows[0], rows[-1], residuals.shape) == (400, 449, (50, 10, 2))
    model = solve_linear(table, choice, stop=400)
    back = np.arange(420 - model.rows_required, 430)
    forecast = model(table.values[None, back[:-10]], table.places[None, back], table.clock[None, 420])
    np.testing.assert_allclose(residuals[20], table.values[420:430] - forecast[0], atol=1e-5)
    assert np.isnan(residuals[-1, 1:]).all()  # no row after the tail is compared


@pytest.mark.parametrize(("rows", "horizon"), [(132, 12), (60, 12), (60, 60), (24, 12)])
def test_short_series_have_a_forecast_of_all_steps(rows: int, horizon: int) -> None:
    values = noisy(rows, 1)
    table = table_of(values, seasons=(12,))
    model = fit(table, horizon)

    back = np.arange(rows - model.rows_required, rows + horizon)
    forecast = model(values[None, back[:-horizon]], (back % 12)[None, :, None], np.empty((1, 0)))

    assert forecast.shape == (1, horizon, 1)
    assert np.abs(forecast).max() < 3 * np.abs(values).max()


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(NoLinearError, match="fewer than 8 windows"):
        fit(table_of(noisy(8, 1)), 3)


def test_only_the_targets_are_forecast() -> None:
    table = table_of(noisy(400, 3), seasons=(12,))
    fitted = fit_linear(table, horizon=5, fit_stop=320, stop_stop=360, targets=(2,))

    _, residuals = path_residuals(fitted.model, table, first=380, stop=400, most=20)

    assert residuals.shape == (20, 5, 1)
    assert np.sqrt(np.nanmean(residuals**2)) < 0.8 * table.values[:, 2].std()


def test_many_columns_share_their_weights() -> None:
    columns = OWN_COLUMNS + 1
    table = table_of(noisy(300, columns), seasons=(12,))
    model = fit(table, 8)

    assert all(len(part.weights) == 1 for part in model.parts)
    _, residuals = path_residuals(model, table, first=270, stop=300, most=30)
    season = table.values[270:300] - table.values[258:288]
    assert np.nanmean(residuals[:, 0] ** 2) < np.mean(season**2)


def test_kinds_are_left_out_and_far_steps_share_weights_until_the_model_fits() -> None:
    table = table_of(noisy(600, 3), seasons=(12,))

    def model(max_bytes: int) -> LinearModel:
        choice = choose_linear(table, horizon=40, fit_stop=480, stop_stop=540, max_bytes=max_bytes)
        return solve_linear(table, choice, stop=600)

    whole, fewer_kinds, fewer_steps = model(10**9), model(60_000), model(20_000)

    assert whole.size_bytes > 60_000 >= fewer_kinds.size_bytes
    assert fewer_kinds.step_weights.max() == 39
    assert fewer_steps.step_weights.max() < 39
    assert fewer_steps.size_bytes <= 20_000
    _, residuals = path_residuals(fewer_steps, table, first=540, stop=600, most=20)
    assert np.sqrt(np.nanmean(residuals**2)) < 1.5 * table.values.std()


def test_buckets_of_steps_widen_with_the_step() -> None:
    np.testing.assert_array_equal(step_buckets(6, 0.0), np.arange(6))
    np.testing.assert_array_equal(step_buckets(8, 1.0), [0, 1, 2, 2, 3, 3, 3, 3])


def chosen(values: FloatArray, *, stop_tail: int) -> list[bytes]:
    table = table_of(values, seasons=(40,))
    choice = choose_linear(table, horizon=8, fit_stop=400, stop_stop=400 + stop_tail)
    return [choice.options.tobytes(), choice.mix.tobytes()]


@pytest.mark.parametrize(("stop_tail", "earlier"), [(30, True), (40, False)])
def test_a_tail_shorter_than_a_season_is_compared_with_one_that_begins_half_a_tail_earlier(
    stop_tail: int, earlier: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []
    errors = StoppingTail.errors

    def recorded(tail: StoppingTail) -> FloatArray:
        compared.append((tail.choice.fit_stop, tail.choice.stop_stop))
        return errors(tail)

    monkeypatch.setattr(StoppingTail, "errors", recorded)

    first = chosen(noisy(500, 1, seed=2), stop_tail=stop_tail)

    stop = 400 + stop_tail
    assert compared == ([(400, stop), (385, stop)] if earlier else [(400, stop)])
    if earlier:
        monkeypatch.setattr("flts.forecasting.linear.fit._earlier_tail", lambda *_: None)
        assert first != chosen(noisy(500, 1, seed=2), stop_tail=stop_tail)


def test_kinds_are_averaged_if_the_tail_cannot_tell_their_errors_apart() -> None:
    table = table_of(noisy(500, 1), seasons=(12,))
    choice = choose_linear(table, horizon=4, fit_stop=300, stop_stop=400)
    errors = np.ones((1, len(choice.kinds), choice.options.shape[2], len(choice.edges) - 1))
    # Blocks of 1, 2 and 4 steps in 100 rows: the squared errors of kinds differ by 10, 14.1 and 20 % by chance.
    errors[0, 1] = 1.12
    errors[0, 2] = 1.21

    mix = decide(choice, table, errors, 10**9).mix[0]

    assert mix == pytest.approx(np.array([[1, 0.5, 0.5], [0, 0.5, 0.5], [0, 0, 0]]))
