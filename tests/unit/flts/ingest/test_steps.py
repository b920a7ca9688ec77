"""A change of step is named, and finer rows are averaged if STEP asks for it."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from flts.errors import RejectedError, SeriesTooShortError
from flts.forecasting.grid import HOUR, FixedGrid, IntArray
from flts.ingest.layout import lay_out
from flts.ingest.steps import StepChange, change_of_step, one_step
from flts.ingest.table import RawTable
from flts.recipe_settings import RecipeSettings
from tests.unit.flts.forecasting.test_grid import GRIDS

START = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
HOURLY = START + HOUR * np.arange(48)
QUARTERS = HOURLY[-1] + 900 * np.arange(1, 97)
BOTH = np.concatenate([HOURLY, QUARTERS])


def table(times: IntArray) -> RawTable:
    values = np.arange(len(times), dtype=float)
    return RawTable(times, ("a", "b"), np.stack([values, np.full(len(times), np.nan)], axis=1), "time")


def test_the_change_is_found_where_it_is() -> None:
    assert change_of_step(BOTH) == StepChange(row=47, before=HOUR, after=900)
    assert change_of_step(HOURLY) is None
    assert change_of_step(np.delete(BOTH, [20, 80])) == StepChange(row=46, before=HOUR, after=900)


@pytest.mark.parametrize("text", GRIDS)
def test_a_calendar_is_no_change_of_step(text: str) -> None:
    times = GRIDS[text].after(np.array([START]), 300)[0]

    assert one_step(table(times), "", name="train").rows == 300


def test_a_change_is_refused_with_both_steps_its_time_and_the_settings() -> None:
    with pytest.raises(RejectedError) as refused:
        one_step(table(BOTH), "", name="train")

    assert (refused.value.code, refused.value.field) == ("change_of_step", "STEP")
    for part in ("1 h apart", "2024-01-02T23:00:00Z", "15 min apart", "STEP=1 h", "STEP=15 min"):
        assert part in refused.value.message


def test_finer_rows_are_averaged_and_missing_cells_left_out() -> None:
    coarse = one_step(table(BOTH), "1h", name="train")

    assert coarse.times.tolist() == (START + HOUR * np.arange(72)).tolist()
    assert coarse.values[:47, 0].tolist() == list(range(47))
    assert coarse.values[47, 0] == np.mean([47, 48, 49, 50])  # 23:00 and the quarters of that hour
    assert coarse.values[48, 0] == np.mean([51, 52, 53, 54])
    assert np.isnan(coarse.values[:, 1]).all()


def test_the_finer_step_keeps_the_finer_rows_alone() -> None:
    fine = one_step(table(BOTH), "15 min", name="train")

    assert fine.times.tolist() == BOTH[47:].tolist()


def test_rows_outside_the_hours_of_the_calendar_are_averaged_into_none() -> None:
    times = START + 900 * np.arange(4 * 24 * 7)
    open_hours = one_step(table(times), "1 h, 08:00 to 09:00", name="train")

    assert open_hours.rows == 14
    assert open_hours.values[:2, 0].tolist() == [np.mean(np.arange(32, 36)), np.mean(np.arange(36, 40))]


def test_rows_of_the_step_itself_stay_as_they_are() -> None:
    given = table(HOURLY)

    assert one_step(given, "1 h", name="train") is given
    assert FixedGrid(HOUR).text == "1 h"


def test_rows_of_which_none_is_at_a_time_of_the_step_are_refused() -> None:
    settings = RecipeSettings(step="1 month, last day")

    for rows in (HOURLY[:1], HOURLY[:30]):
        with pytest.raises(SeriesTooShortError) as refused:
            lay_out(table(rows), None, settings)
        assert refused.value.field == "train"
