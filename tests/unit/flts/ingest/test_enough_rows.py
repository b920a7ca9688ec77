from __future__ import annotations

import pytest

from flts.forecasting.grid import FixedGrid
from flts.ingest.enough_rows import UsableRows, horizon_of
from flts.settings import WindowSettings

HOURS = FixedGrid(3_600)


def rows(train: int, *test: int) -> UsableRows:
    return UsableRows(train, (train,), sum(test), test, warmup_rows=0, joined=True)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 24),
        ({"horizon": "auto", "output_seq_len": "auto"}, 24),
        ({"output_seq_len": 3}, 3),
        ({"horizon": "2 days", "output_seq_len": 3}, 48),
        ({"horizon": 7}, 7),
        ({"horizon": "400"}, 100),
    ],
)
def test_the_horizon_is_the_settings_or_the_explicit_length_of_a_pass_or_the_default(
    settings: dict[str, object], expected: int
) -> None:
    assert horizon_of(rows(800, 200), HOURS, WindowSettings(**settings)).steps == expected


def test_forecasts_of_the_horizon_fit_twice_into_the_longest_piece_of_test_rows() -> None:
    horizon = horizon_of(rows(800, 30, 20), HOURS, WindowSettings(horizon="24"))

    assert (horizon.steps, horizon.asked) == (15, 24)
    assert horizon.note == "HORIZON=24 is 24 steps, more than half of 30 test rows; 15 steps are forecast"
