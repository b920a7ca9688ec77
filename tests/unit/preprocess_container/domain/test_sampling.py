from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flts.forecasting.grid import FixedGrid
from flts.forecasting.series import Series
from preprocess_container.domain.sampling import sample_rows


def make_series(rows: int) -> Series:
    return Series(60 * np.arange(rows), ("a",), np.arange(rows, dtype=float)[:, None], FixedGrid(60))


@given(
    rows=st.integers(1, 200),
    wanted=st.integers(1, 200),
    seed=st.integers(-(2**40), 2**40),
    stream=st.sampled_from([0, 1]),
)
def test_a_random_sample_is_one_block_of_neighbours(rows: int, wanted: int, seed: int, stream: int) -> None:
    series, sampling = sample_rows(make_series(rows), rows=wanted, strategy="random", seed=seed, stream=stream)

    assert len(series) == min(rows, wanted)
    assert (np.diff(series.values[:, 0]) == 1).all()
    assert (sampling is None) == (wanted >= rows)
    if sampling is not None:
        assert (sampling.original_rows, sampling.sampled_rows, sampling.seed) == (rows, wanted, seed)


def test_the_same_seed_draws_the_same_block_and_others_draw_others() -> None:
    def start(seed: int, stream: int = 0) -> float:
        series, _ = sample_rows(make_series(10_000), rows=10, strategy="random", seed=seed, stream=stream)
        return float(series.values[0, 0])

    assert start(1) == start(1)
    assert len({start(seed) for seed in range(-10, 10)}) > 15
    assert start(1) != start(1, stream=1)


def test_every_start_can_be_drawn() -> None:
    starts = {
        float(sample_rows(make_series(7), rows=4, strategy="random", seed=seed, stream=0)[0].values[0, 0])
        for seed in range(100)
    }

    assert starts == {0, 1, 2, 3}


def test_head_takes_the_first_rows() -> None:
    series, sampling = sample_rows(make_series(100), rows=30, strategy="head", seed=45, stream=0)

    assert series.values[:, 0].tolist() == list(range(30))
    assert sampling is not None
    assert sampling.model_dump() == {"strategy": "head", "original_rows": 100, "sampled_rows": 30, "seed": 45}
