from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flts.forecasting.recipe import RecipeSpec, fit_recipe, transform
from flts.forecasting.splits import as_train, tails
from flts.forecasting.windows import sliding_windows, target_rows, training_windows
from tests.made_series import make_series

ROWS = np.arange(10.0)[:, None]


def test_a_window_is_the_rows_before_its_targets() -> None:
    windows = sliding_windows(ROWS, -ROWS, segments=[slice(0, 10)], window_steps=3, horizon_steps=2)

    assert windows.inputs.shape == (6, 3, 1)
    assert windows.inputs.dtype == windows.targets.dtype == np.float32
    assert windows.inputs[0, :, 0].tolist() == [0, 1, 2]
    assert windows.targets[0, :, 0].tolist() == [-3, -4]
    assert windows.inputs[-1, :, 0].tolist() == [5, 6, 7]
    assert windows.targets[-1, :, 0].tolist() == [-8, -9]
    assert windows.target_rows.tolist() == [3, 4, 5, 6, 7, 8]


def test_targets_lie_between_the_rows_asked_for_and_inputs_may_reach_before() -> None:
    windows = sliding_windows(
        ROWS,
        ROWS,
        segments=[slice(0, 10)],
        window_steps=3,
        horizon_steps=2,
        first_target_row=5,
        last_target_row=8,
    )

    assert windows.target_rows.tolist() == [5, 6]
    assert windows.inputs[0, :, 0].tolist() == [2, 3, 4]


def test_no_window_crosses_a_cut() -> None:
    windows = sliding_windows(
        ROWS, ROWS, segments=[slice(0, 5), slice(5, 7), slice(7, 10)], window_steps=2, horizon_steps=1
    )

    assert windows.target_rows.tolist() == [2, 3, 4, 9]
    assert windows.inputs[:, :, 0].tolist() == [[0, 1], [1, 2], [2, 3], [7, 8]]


def test_too_few_rows_make_no_window_of_the_right_shape() -> None:
    windows = sliding_windows(ROWS[:3], ROWS[:3], segments=[slice(0, 3)], window_steps=3, horizon_steps=1)

    assert windows.inputs.shape == (0, 3, 1)
    assert windows.targets.shape == (0, 1, 1)
    assert len(windows) == 0
    assert target_rows([], context_rows=1, last_row=0).tolist() == []


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    window_steps=st.integers(1, 5),
    horizon_steps=st.integers(1, 4),
    first=st.integers(0, 20),
    count=st.integers(0, 30),
)
@settings(deadline=None)
def test_windows_are_all_those_that_a_plain_loop_finds(
    lengths: list[int], window_steps: int, horizon_steps: int, first: int, count: int
) -> None:
    n = sum(lengths)
    segment_of = np.repeat(np.arange(len(lengths)), lengths)
    stops = np.cumsum(lengths).tolist()
    rows = np.random.default_rng(n).normal(size=(n, 2)).astype(np.float32).astype(float)
    last = min(first + count, n)

    windows = sliding_windows(
        rows,
        rows[:, :1],
        segments=[slice(stop - length, stop) for length, stop in zip(lengths, stops, strict=True)],
        window_steps=window_steps,
        horizon_steps=horizon_steps,
        first_target_row=first,
        last_target_row=last,
    )

    expected = [
        row
        for row in range(max(first, window_steps), last - horizon_steps + 1)
        if segment_of[row - window_steps] == segment_of[row + horizon_steps - 1]
    ]
    assert windows.target_rows.tolist() == expected
    for position, row in enumerate(expected):
        np.testing.assert_array_equal(windows.inputs[position], rows[row - window_steps : row])
        np.testing.assert_array_equal(windows.targets[position], rows[row : row + horizon_steps, :1])


def test_training_windows_share_out_every_target_row_once() -> None:
    series = make_series(100)
    recipe = fit_recipe(as_train(series), RecipeSpec(targets=("load",)))
    features = transform(recipe, series)

    windows = training_windows(
        features,
        recipe,
        tails(100, stop_tail=0.1, calibration_tail=0.2),
        input_seq_len=10,
        output_seq_len=1,
    )

    assert windows.fit.target_rows.tolist() == list(range(10, 70))
    assert windows.stop.target_rows.tolist() == list(range(70, 80))
    assert windows.calibrate.target_rows.tolist() == list(range(80, 100))
    assert windows.fit.inputs.shape == (60, 10, 9)
    np.testing.assert_array_equal(windows.stop.targets[:, 0, 0], features.values[70:80, 2].astype(np.float32))


def test_forty_windows_come_of_the_fifty_rows_of_the_seeds_scenario() -> None:
    series = make_series(50, tuple("abcdefghijk"))
    features = transform(fit_recipe(as_train(series), RecipeSpec()), series)

    windows = sliding_windows(
        features.values, features.values, segments=features.segments(), window_steps=10, horizon_steps=1
    )

    assert windows.inputs.shape == (40, 10, 17)
