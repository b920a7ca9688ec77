"""Read the setting ``HORIZON``: the steps that are trained, judged and served.

The horizon is a number of steps (``48``) or a duration (``24h``, ``14 days``, ``12 months``). Without the setting it
follows from the step of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

from flts.errors import RejectedError
from flts.forecasting.grid import BUSINESS_DAYS, DAY, HOUR, WEEK, YEAR_SECONDS, FixedGrid, Grid, MonthGrid, WeekGrid
from flts.forecasting.step_setting import UNIT_MONTHS, UNIT_SECONDS, count_and_unit, is_business_day

MOST_DEFAULT_STEPS = 168
"""Steps of the default horizon at most: a week of hours."""
ROWS_PER_STEP = 10
"""Rows that the data set holds for each step of the horizon at least."""
DEFAULT_LENGTHS = (
    (HOUR, DAY),
    (DAY - 1, WEEK),
    (DAY, 2 * WEEK),
    (WEEK - 1, 4 * WEEK),
    (WEEK, 13 * WEEK),
    (32 * DAY, YEAR_SECONDS),
    (93 * DAY, 2 * YEAR_SECONDS),
)
"""Default horizon in seconds by the longest step in seconds that it is for.

Between hours and days it is a week (28 steps of 6 h), between days and weeks four weeks, from two weeks to a month a
year, and up to a quarter two years.
"""
LONGEST_LENGTH = 5 * YEAR_SECONDS
"""Default horizon in seconds for half years, years and longer steps."""
_EXAMPLES = "48 (steps), 24h, 90min, 14 days, 10 business days, 2 weeks, 12 months, 8 quarters, 5 years"


@dataclass(frozen=True, slots=True)
class Horizon:
    """The horizon of a data set."""

    steps: int
    """Steps that are forecast, at least 1."""
    asked: int
    """Steps that the setting or the grid's default asked for; more than ``steps`` if the data set is too short."""
    note: str | None = None
    """A sentence that explains why ``steps`` is less than the setting asked for; None if it is not."""


def find_horizon(setting: str | int, grid: Grid, rows: int, *, test_rows: int | None = None) -> Horizon:
    """Return the horizon of a data set.

    It is never more than a tenth of the rows, nor more than half of the test rows, because forecasts are judged at
    every step; but it has at least one step.

    Parameters
    ----------
    setting : str or int
        ``HORIZON``; empty or ``auto`` for the default of the grid.
    rows : int
        Training and test rows of the data set.
    test_rows : int, optional
        Longest piece of test rows without a gap; None if it is not known.

    Raises
    ------
    RejectedError
        ``bad_setting`` with field ``HORIZON``; the message shows how horizons are written.
    """
    is_default = str(setting).strip().lower() in ("", "auto")
    asked = default_steps(grid) if is_default else steps_of(setting, grid)
    most = rows // ROWS_PER_STEP
    limit = f"a tenth of {rows:,} rows"
    if test_rows is not None and test_rows // 2 < most:
        most, limit = test_rows // 2, f"half of {test_rows:,} test rows"
    steps = max(1, min(asked, most))
    note = None
    if steps < asked and not is_default:
        note = f"HORIZON={setting} is {_steps(asked)}, more than {limit}; {_steps(steps)} are forecast"
        note = note.replace("1 step are", "1 step is")
    return Horizon(steps, asked, note)


def default_steps(grid: Grid) -> int:
    """Return the steps of the default horizon for a grid.

    24 h for hours and finer steps (at most `MOST_DEFAULT_STEPS`), 14 days, 10 business days, 13 weeks, 12 months, 8
    quarters, 5 years; `DEFAULT_LENGTHS` says what is used in between. With opening hours, 24 h are the rows of the
    longest day, and a week has the rows that it has.
    """
    if isinstance(grid, WeekGrid):
        return _default_of_week(grid)
    step = grid.step_seconds
    return max(1, min(_default_length(step) // step, MOST_DEFAULT_STEPS))


def steps_of(setting: str | int, grid: Grid) -> int:
    """Return the steps that ``HORIZON`` asks for on a grid, without regard to the rows.

    Raises
    ------
    RejectedError
        See `find_horizon`: the setting is neither a number of steps nor a duration, the duration is no whole number
        of steps, or the grid has no such unit, as hours and days have no months.
    """
    text = str(setting).strip().lower()
    if text.isascii() and text.isdigit():
        parsed: tuple[int, str] | None = int(text), "step"
    else:
        parsed = count_and_unit(text)
    if parsed is None or not text[0].isdigit():
        raise _refused(setting, f"is no horizon; horizons are written as {_EXAMPLES}")
    count, unit = parsed
    if not (is_business_day(unit) or unit in UNIT_MONTHS or unit in UNIT_SECONDS or unit in ("step", "steps")):
        raise _refused(setting, f"has the unknown unit {unit!r}; horizons are written as {_EXAMPLES}")
    if count == 0:
        raise _refused(setting, "is no horizon: it needs at least 1 step")
    if unit in ("step", "steps"):
        return count
    if isinstance(grid, WeekGrid):
        return _on_week(count, unit, grid, setting)
    if is_business_day(unit) or (unit in UNIT_MONTHS) != isinstance(grid, MonthGrid):
        raise _refused(setting, f"cannot be counted in steps of {grid.text}; {_other_units(grid)}")
    if isinstance(grid, MonthGrid):
        return _whole(count * UNIT_MONTHS[unit], grid.months, grid, setting)
    return _whole(count * UNIT_SECONDS[unit], grid.step_seconds, grid, setting)


def _default_of_week(grid: WeekGrid) -> int:
    a_day, a_week = max(_rows_of_days(grid)), sum(_rows_of_days(grid))
    if grid.step <= HOUR:
        rows = a_day
    elif a_week == 1:
        rows = _default_length(WEEK) // WEEK
    else:
        rows = a_week * (_default_length(grid.step) // WEEK)
    return max(1, min(rows, MOST_DEFAULT_STEPS))


def _default_length(step_seconds: int) -> int:
    return next((length for longest, length in DEFAULT_LENGTHS if step_seconds <= longest), LONGEST_LENGTH)


def _on_week(count: int, unit: str, grid: WeekGrid, setting: str | int) -> int:
    """Return the rows of a duration on a week with closed days or hours: of whole weeks, or of days that are alike."""
    rows = _rows_of_days(grid)
    if is_business_day(unit):
        observed = {day for day, own in enumerate(rows) if own}
        own_rows = {rows[day] for day in BUSINESS_DAYS}
        if observed == set(BUSINESS_DAYS) and len(own_rows) == 1:
            return count * own_rows.pop()
    elif unit in UNIT_SECONDS:
        seconds = count * UNIT_SECONDS[unit]
        if seconds % WEEK == 0:
            return seconds // WEEK * sum(rows)
        if seconds % DAY == 0 and len(set(rows)) == 1:
            return seconds // DAY * rows[0]
    raise _refused(setting, f"is not always the same number of rows on the grid {grid.text}; {_other_units(grid)}")


def _rows_of_days(grid: WeekGrid) -> list[int]:
    """Return the rows of each day from Monday on."""
    return [sum((last - first) // grid.step + 1 for first, last in ranges) for ranges in grid.days]


def _whole(length: int, step: int, grid: Grid, setting: str | int) -> int:
    steps, rest = divmod(length, step)
    if rest:
        raise _refused(setting, f"is no whole number of steps of {grid.text}")
    return steps


def _other_units(grid: Grid) -> str:
    if isinstance(grid, MonthGrid):
        return "give months, quarters or years, or a number of steps"
    if isinstance(grid, FixedGrid):
        return "give minutes, hours, days or weeks, or a number of steps"
    return "give weeks or a number of steps"


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count:,} steps"


def _refused(setting: str | int, why: str) -> RejectedError:
    msg = f"HORIZON={str(setting)[:80]!r} {why}"
    return RejectedError(msg, code="bad_setting", field="HORIZON")
