from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from flts.times import looks_like_end_of_summer_time, looks_like_start_of_summer_time, to_local

MINUTE = 60_000_000
AUTUMN = 1_729_555_200_000_000  # 2024-10-22T00:00Z
SPRING = 1_711_411_200_000_000  # 2024-03-26T00:00Z


def local(start: int, minutes: int, zone: str, days: int = 10) -> NDArray[np.int64]:
    return to_local(start + minutes * MINUTE * np.arange(days * 1440 // minutes), zone)


@pytest.mark.parametrize("minutes", [10, 15, 30, 60])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "Europe/London", "Europe/Helsinki"])
def test_a_repeated_hour_looks_like_the_end_of_summer_time_in_both_orders(zone: str, minutes: int) -> None:
    times = local(AUTUMN, minutes, zone)
    first_of_second_pass = int(np.flatnonzero(np.diff(times) <= 0)[0]) + 1

    assert looks_like_end_of_summer_time(times) == first_of_second_pass
    assert looks_like_end_of_summer_time(times[::-1]) is not None
    assert looks_like_end_of_summer_time(np.sort(times)) is not None


def test_the_change_of_new_york_is_known() -> None:
    times = local(AUTUMN + 8 * 1440 * MINUTE, 60, "America/New_York")

    assert looks_like_end_of_summer_time(times) is not None


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_times_without_a_repeat_do_not(zone: str) -> None:
    assert looks_like_end_of_summer_time(local(AUTUMN, 60, zone)) is None
    assert looks_like_start_of_summer_time(local(SPRING, 60, zone)) is None


def test_a_row_that_is_repeated_elsewhere_is_a_duplicate_and_no_clock_change() -> None:
    times = local(AUTUMN, 60, "Europe/Berlin")
    with_duplicate = np.insert(times, 5, times[5])

    assert looks_like_end_of_summer_time(with_duplicate) is None


def test_a_quarter_of_the_hour_that_is_repeated_is_no_clock_change() -> None:
    times = local(AUTUMN, 15, "UTC")
    at = int(np.flatnonzero(times == AUTUMN + (5 * 1440 + 120) * MINUTE)[0])

    assert looks_like_end_of_summer_time(np.insert(times, at, times[at])) is None


def test_daily_times_never_show_summer_time() -> None:
    assert looks_like_end_of_summer_time(local(AUTUMN, 1440, "Europe/Berlin", days=30)) is None


@pytest.mark.parametrize("minutes", [15, 60])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "Europe/London"])
def test_a_missing_hour_looks_like_the_beginning_of_summer_time(zone: str, minutes: int) -> None:
    times = local(SPRING, minutes, zone)
    expected = int(np.flatnonzero(np.diff(times) > minutes * MINUTE)[0]) + 1

    assert looks_like_start_of_summer_time(times) == expected
    assert looks_like_start_of_summer_time(times[::-1]) == len(times) - expected
    assert looks_like_start_of_summer_time(np.delete(local(SPRING, minutes, "UTC"), 30)) is None
