from __future__ import annotations

import numpy as np

from flts.forecasting.linear.profile import season_profile
from flts.forecasting.linear.table import LinearTable


def table_of(values: list[float], season: int, places: list[int] | None = None) -> LinearTable:
    rows = len(values)
    place = np.array(places) if places is not None else np.arange(rows) % season
    return LinearTable(
        np.array(values)[:, None],
        np.ones((rows, 1), dtype=bool),
        [slice(0, rows)],
        (season,),
        place[:, None],
        np.empty((rows, 0)),
    )


def test_a_profile_is_the_mean_at_a_place_and_leaves_a_fit_row_s_own_value_out() -> None:
    table = table_of([1.0, 2.0, 3.0, 4.0, 8.0, 0.0, 50.0, 60.0], 2)

    profile, at_rows = season_profile(table, table.values, 0, stop=6)

    np.testing.assert_allclose(profile[:, 0], [4.0, 2.0])
    np.testing.assert_allclose(at_rows[:6, 0], [5.5, 2.0, 4.5, 1.0, 2.0, 3.0])
    np.testing.assert_allclose(at_rows[6:, 0], [4.0, 2.0])  # rows after the stop are not in it


def test_imputed_cells_are_left_out() -> None:
    table = table_of([1.0, 2.0, 99.0, 4.0, 5.0, 6.0], 2)
    table.observed[2] = False

    profile, _ = season_profile(table, table.values, 0, stop=6)

    np.testing.assert_allclose(profile[:, 0], [3.0, 4.0])


def test_neighbouring_places_are_averaged_if_that_predicts_better() -> None:
    rng = np.random.default_rng(0)
    rows = 144 * 6
    noise = rng.normal(size=rows)
    smooth, rough = np.sin(2 * np.pi * np.arange(rows) / 144), np.tile(rng.normal(size=144) * 5, 6)

    of_smooth, _ = season_profile(table_of([*(smooth + noise)], 144), (smooth + noise)[:, None], 0, stop=rows)
    of_rough, _ = season_profile(table_of([*(rough + noise)], 144), (rough + noise)[:, None], 0, stop=rows)

    assert np.abs(of_smooth[:, 0] - smooth[:144]).mean() < 0.75 * np.abs(noise.reshape(6, 144).mean(axis=0)).mean()
    np.testing.assert_allclose(of_rough[:, 0], (rough + noise).reshape(6, 144).mean(axis=0))
