from __future__ import annotations

import csv
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from flts.forecasting.grid import DAY, HOUR, FixedGrid, MonthGrid
from flts.forecasting.season_tests import MOST_TARGETS, find_seasons, table_seasons
from flts.forecasting.series import FloatArray, Series, regularise
from flts.ingest.sample import STEP_SECONDS, TRAIN_ROWS, generate_sample
from tests.false_seasons import GRIDS, KINDS, false_seasons, times_of

DATA = Path(__file__).resolve().parents[5] / "shared" / "data"
HOURLY = FixedGrid(HOUR)


def _hourly(rows: int, *, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Return the hours and standard normal noise."""
    return np.arange(rows, dtype=float), np.random.default_rng(seed).standard_normal(rows)


def _found(values: FloatArray) -> tuple[int, ...]:
    return find_seasons(values[:, None], times_of(HOURLY, len(values)), HOURLY).steps


@pytest.mark.parametrize("on", GRIDS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_season_is_found_where_there_is_none(kind: str, on: str) -> None:
    assert list(false_seasons(kind, on, series=15)) == []


def test_a_season_in_the_level_is_found_under_noise_and_a_trend() -> None:
    hours, noise = _hourly(24 * 30)
    season = np.sin(2 * np.pi * hours / 24)

    assert _found(season + noise + 0.5 * hours) == (24,)
    assert _found(1e9 + season + noise) == (24,)


def test_a_season_in_the_changes_of_a_random_walk_is_found() -> None:
    hours, noise = _hourly(24 * 60)

    assert _found((noise + 2 * np.sin(2 * np.pi * hours / 24)).cumsum()) == (24,)


@pytest.mark.parametrize("steps", [1, 3])
def test_any_number_of_rows_can_be_tested(steps: int) -> None:
    grid = MonthGrid(steps)
    values = np.random.default_rng(0).standard_normal((60, 1))

    for rows in range(len(values) + 1):
        assert find_seasons(values[:rows], times_of(grid, rows), grid).steps == ()


def test_two_seasons_and_half_of_a_third_can_be_alike() -> None:
    grid = MonthGrid(1)
    values = np.tile(np.random.default_rng(0).standard_normal(12), 3)[6:]

    found = find_seasons(values[:, None], times_of(grid, 30), grid)

    assert found.steps == (12,)


def test_a_season_that_grows_with_the_level_is_found() -> None:
    months = np.arange(60)
    values = 100 * np.exp(0.02 * months) * (1 + 0.2 * np.sin(2 * np.pi * months / 12))
    grid = MonthGrid(1)

    assert find_seasons(values[:, None], times_of(grid, 60), grid).steps == (12,)


def test_a_week_counts_only_for_what_the_day_leaves() -> None:
    hours, noise = _hourly(168 * 12)
    day = 3 * np.sin(2 * np.pi * hours / 24)
    weekend = np.where(hours // 24 % 7 >= 5, -2.0, 0.0)

    assert _found(day + noise) == (24,)
    assert _found(day + weekend + noise) == (24, 168)
    assert _found(weekend + noise) == (168,)


def test_two_seasons_count_if_they_are_alike_and_one_never_counts() -> None:
    hours, noise = _hourly(48)
    season = 10 * np.sin(2 * np.pi * hours / 24) ** 3

    assert _found(season + noise) == (24,)
    assert _found(np.where(hours < 24, season, 0) + noise) == ()
    assert _found((season + noise)[:47]) == ()


def test_a_season_counts_for_the_table_if_it_counts_for_one_target() -> None:
    hours, noise = _hourly(24 * 40)
    other = _hourly(24 * 40, seed=1)[1].cumsum()
    table = np.stack([other, np.sin(2 * np.pi * hours / 24) + noise, np.full(len(hours), 7.0)], axis=1)

    found = find_seasons(table, times_of(HOURLY, len(hours)), HOURLY)

    assert found.steps == (24,)
    assert found.by_target == ((), (24,), ())


def test_missing_cells_and_gaps_move_no_season() -> None:
    hours, noise = _hourly(24 * 60)
    values = 2 * np.sin(2 * np.pi * hours / 24) + noise
    values[np.random.default_rng(2).random(len(values)) < 0.2] = np.nan
    kept = (hours < 400) | (hours >= 631)  # 231 missing rows are no whole number of days

    found = find_seasons(values[kept][:, None], times_of(HOURLY, len(hours))[kept], HOURLY)

    assert found.steps == (24,)


def test_a_day_keeps_its_hours_when_the_clocks_change() -> None:
    rows = 24 * 300
    grid = FixedGrid(HOUR, "Europe/Berlin")
    times = times_of(grid, rows)
    at_nine = (grid.clock(times) // HOUR % 24 == 9).astype(float)
    noise = np.random.default_rng(3).standard_normal(rows)

    found = find_seasons((at_nine + 0.01 * noise)[:, None], times, grid)

    assert found.steps == (24,), "a peak that moves to another hour would leave a season of a week or a change"


def test_a_smooth_trend_without_noise_has_no_season() -> None:
    rows = np.arange(24 * 30.0)

    assert _found(rows) == ()
    assert _found(1e6 + 0.1 * rows) == ()
    assert _found(0.1 * rows**2) == ()
    assert _found(np.exp(rows / 200)) == ()
    assert _found(np.full(len(rows), 0.1)) == ()


def test_a_grid_without_seasons_and_a_table_without_rows_have_none() -> None:
    odd = FixedGrid(7 * 60)
    values = np.zeros((500, 2))

    assert find_seasons(values, times_of(odd, 500), odd).steps == ()
    assert find_seasons(values[:0], times_of(odd, 0), HOURLY).by_target == ((), ())
    assert find_seasons(np.full((500, 2), np.nan), times_of(HOURLY, 500), HOURLY).steps == ()


def test_of_many_targets_evenly_spread_ones_are_tested() -> None:
    hours, _ = _hourly(24 * 30)
    values = np.random.default_rng(0).standard_normal((len(hours), 10 * MOST_TARGETS))
    values[:, 5:10] += 3 * np.sin(2 * np.pi * hours / 24)[:, None]
    times = times_of(HOURLY, len(hours))

    assert find_seasons(values, times, HOURLY).steps == (24,)
    assert table_seasons(values, times, HOURLY) == ()  # columns 5 to 9 are between two tested ones
    assert table_seasons(values[:, 5:15], times, HOURLY) == (24,)
    assert table_seasons(values[:, 5:], times, HOURLY) == (24,)


def test_many_targets_cost_as_much_as_the_tested_ones() -> None:
    values = np.random.default_rng(0).standard_normal((1_000, 1_000))

    began = time.process_time()
    table_seasons(values, times_of(HOURLY, 1_000), HOURLY)

    assert time.process_time() - began < 0.5  # seconds; all targets take 1.0


def test_of_a_long_table_the_newest_rows_are_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    hours, noise = _hourly(24 * 60)
    values = (noise + 3 * np.sin(2 * np.pi * hours / 24) * (hours < 24 * 30))[:, None]
    times = times_of(HOURLY, len(hours))
    monkeypatch.setattr("flts.forecasting.season_tests.MOST_CELLS", 24 * 30)

    assert table_seasons(values, times, HOURLY) == ()
    assert table_seasons(values[: 24 * 30], times[: 24 * 30], HOURLY) == (24,)
    assert table_seasons(values[:, :0], times, HOURLY) == table_seasons(values[:0], times[:0], HOURLY) == ()


def test_the_sample_has_a_season_of_a_day() -> None:
    grid = FixedGrid(STEP_SECONDS)
    values = generate_sample(TRAIN_ROWS)

    assert DAY // STEP_SECONDS in find_seasons(values, times_of(grid, TRAIN_ROWS), grid).steps


@pytest.mark.parametrize(
    ("file", "share", "seasons"),
    [
        ("PobleSec.csv", 1.0, {720}),
        ("etth1.csv", 0.8, {24}),
        ("taxi.csv", 0.8, {48, 336}),
        ("taylor.csv", 0.8, {48, 336}),
        ("temps.csv", 0.8, {365}),
        ("air.csv", 0.8, {12}),
    ],
)
def test_the_main_seasons_of_measured_series_are_found_in_a_second(file: str, share: float, seasons: set[int]) -> None:
    series = _measured(file)
    rows = round(share * len(series))

    began = time.process_time()
    found = find_seasons(series.values[:rows], series.times[:rows], series.grid)

    assert seasons <= set(found.steps)
    assert time.process_time() - began < 1


def _measured(file: str) -> Series:
    if not (DATA / file).exists():
        pytest.skip(f"no ../shared/data/{file}: the measured series are not beside the project")
    with (DATA / file).open() as lines:
        header, *rows = csv.reader(lines)
    times = [int(datetime.fromisoformat(row[0]).replace(tzinfo=UTC).timestamp()) for row in rows]
    values = np.array([[float(cell) if cell else np.nan for cell in row[1:]] for row in rows])
    return regularise(np.array(times), tuple(header[1:]), values, max_gap_steps=12)[0]
