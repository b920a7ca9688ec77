from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flts.errors import RejectedError
from flts.forecasting.direct import REMEMBERED_ORIGINS, Calendar, DirectInputs
from flts.forecasting.grid import FixedGrid, Grid, MonthGrid
from flts.forecasting.places import clock_turns, season_places
from flts.forecasting.recipe import RecipeSpec, fit_recipe, scaled_rows
from flts.forecasting.splits import as_train
from tests.made_series import make_series

BERLIN = FixedGrid(3_600, "Europe/Berlin")
LENGTH, HORIZON = 30, 12
NAMES = ("past", "places", "clock")


def expected_at(grid: Grid, seasons: tuple[int, ...], last: int) -> tuple[np.ndarray, np.ndarray]:
    one = np.array([last])
    times = np.concatenate([grid.before(one, LENGTH), grid.after(one, HORIZON)], axis=1)[0]
    return season_places(grid, times, seasons), clock_turns(grid, times).astype(np.float32)


@given(
    st.sampled_from([(BERLIN, (24, 168)), (FixedGrid(900), (96,)), (MonthGrid(1), (12,))]),
    st.lists(st.integers(0, 400), min_size=1, max_size=2 * REMEMBERED_ORIGINS),
    st.sampled_from([0, 0, 7]),
)
def test_a_batch_of_origins_has_the_calendar_of_each_alone(
    season: tuple[Grid, tuple[int, ...]], rows: list[int], late: int
) -> None:
    grid, seasons = season
    start = grid.split(np.array([1_700_000_000]))[0][0]
    times = grid.at(start + np.array(rows))
    if isinstance(grid, FixedGrid):
        times[: len(times) // 2] += late  # rows of another phase
    calendar = Calendar(grid, seasons, NAMES, LENGTH, HORIZON)

    for _ in range(2):  # the second call finds some origins in the cache
        made = calendar.at(times)
        assert made["clock"].dtype == np.float32
        for at, last in enumerate(times.tolist()):
            places, clock = expected_at(grid, seasons, last)
            assert np.array_equal(made["places"][at], places)
            assert np.array_equal(made["clock"][at], clock)


def test_only_what_the_model_takes_is_made() -> None:
    times = np.array([1_700_000_000])

    assert set(Calendar(BERLIN, (24,), ("past", "clock"), 3, 2).at(times)) == {"clock"}
    assert set(Calendar(BERLIN, (), ("past",), 3, 2).at(times)) == set()


def test_seconds_are_those_of_the_local_clock() -> None:
    summer = np.array([1_720_000_800])  # 10:00 UTC, 12:00 in Berlin

    made = Calendar(BERLIN, (), ("seconds",), 2, 1).at(summer)["seconds"]

    assert ((made[0] - summer) // 3_600).tolist() == [1, 2, 3]


def test_the_cache_forgets_instead_of_growing() -> None:
    calendar = Calendar(BERLIN, (24,), NAMES, LENGTH, HORIZON)
    for at in range(3 * REMEMBERED_ORIGINS):
        calendar.at(1_699_999_200 + 3_600 * np.array([at]))

    assert 0 < len(calendar._remembered) <= REMEMBERED_ORIGINS


@pytest.mark.parametrize("horizon", [3, 50])
def test_forecasts_are_appended_as_the_next_rows(horizon: int) -> None:
    series = make_series(100)
    recipe = fit_recipe(as_train(series), RecipeSpec(add_val=0.5))
    scaled = scaled_rows(recipe, series)[0].astype(np.float32)
    source = DirectInputs(recipe, NAMES, (720,), LENGTH, horizon)
    state = source.start(scaled[None, :40], series.times[39:40])

    state.append(scaled[None, 40 : 40 + horizon])

    after = source.start(scaled[None, : 40 + horizon], series.times[39 + horizon : 40 + horizon]).inputs()
    for name, tensor in state.inputs().items():
        assert tensor.flags["C_CONTIGUOUS"]
        np.testing.assert_array_equal(tensor, after[name])


def test_a_model_whose_inputs_are_not_forecast_is_not_rolled() -> None:
    series = make_series(100)
    recipe = fit_recipe(as_train(series), RecipeSpec(targets=("down",)))
    state = DirectInputs(recipe, NAMES, (24,), LENGTH, 5).start(np.zeros((1, 40, 3)), series.times[39:40])

    with pytest.raises(RejectedError, match="longest horizon is 5 steps") as refused:
        state.append(np.zeros((1, 5, 1)))
    assert refused.value.code == "horizon_too_long"
