"""The days of public holidays, from the package ``holidays``.

They are stored in the recipe, so that only the preparation of a data set needs the package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

import numpy as np

from flts.errors import RejectedError
from flts.forecasting.grid import DAY
from flts.recipe_settings import HOLIDAY_PART

DAYS_AHEAD = 731
"""Days after the last row whose holidays are computed: two years."""
YEARS = (1800, 2499)
"""First and last year whose holidays are computed, so that one row in the year 9999 does not cost 8,000 years."""
SHOWN_CODES = 10
_EPOCH = date(1970, 1, 1).toordinal()


def holiday_days(codes: tuple[str, ...], first_second: int, last_second: int) -> Mapping[str, tuple[int, ...]]:
    """Return the days of the features of holidays, by name, as days since 1970-01-01 on the local calendar.

    Each code has the features ``holiday_DE`` (holidays on working days), ``holiday_DE_weekend`` (holidays at a
    weekend), ``holiday_DE_before`` and ``holiday_DE_after`` (working days next to a holiday on a working day). A
    feature without a day is left out.

    Parameters
    ----------
    codes : tuple of str
        ``HOLIDAYS``: ``DE`` or ``DE-BY``.
    first_second, last_second : int
        First and last row on the clock of the data set, seconds since 1970. Days up to `DAYS_AHEAD` after the last row
        are included.

    Raises
    ------
    RejectedError
        ``bad_setting`` with field ``HOLIDAYS`` for an unknown country or region.
    """
    if not codes:
        return {}
    first, last = first_second // DAY, last_second // DAY + DAYS_AHEAD
    days: dict[str, tuple[int, ...]] = {}
    for code in codes:
        for name, found in _features(code, first, last).items():
            within = tuple(day for day in sorted(found) if first <= day <= last)
            if within:
                days[name] = within
    return days


def _features(code: str, first: int, last: int) -> dict[str, set[int]]:
    calendar = _calendar(code, years=range(max(_year(first - 1), YEARS[0]), min(_year(last + 1), YEARS[1]) + 1))
    weekend = calendar.weekend
    dates = {day.toordinal() - _EPOCH for day in calendar}

    def is_workday(day: int) -> bool:
        return day not in dates and date.fromordinal(day + _EPOCH).weekday() not in weekend

    on_workdays = {day for day in dates if date.fromordinal(day + _EPOCH).weekday() not in weekend}
    return {
        f"holiday_{code}": on_workdays,
        f"holiday_{code}_weekend": dates - on_workdays,
        f"holiday_{code}_before": {day - 1 for day in on_workdays if is_workday(day - 1)},
        f"holiday_{code}_after": {day + 1 for day in on_workdays if is_workday(day + 1)},
    }


def _calendar(code: str, years: range) -> Any:
    import holidays  # noqa: PLC0415 - only data sets with HOLIDAYS need the package

    country, _, region = code.partition("-")
    known = holidays.list_supported_countries(include_aliases=False)
    if country not in known:
        msg = f"HOLIDAYS: {country} is no country whose holidays are known; known are {_shown(known)}"
        raise RejectedError(msg, code="bad_setting", field="HOLIDAYS")
    if region and region not in known[country]:
        msg = (
            f"HOLIDAYS: {region} is no region of {country} whose holidays are known; known are {_shown(known[country])}"
        )
        raise RejectedError(msg, code="bad_setting", field="HOLIDAYS")
    return holidays.country_holidays(country, subdiv=region or None, years=years)


def _year(day: int) -> int:
    return int(np.datetime64(day, "D").astype("datetime64[Y]").astype(np.int64)) + 1970


def _shown(codes: Iterable[str]) -> str:
    listed = sorted(code for code in codes if HOLIDAY_PART.fullmatch(code))
    more = f" and {len(listed) - SHOWN_CODES} more" if len(listed) > SHOWN_CODES else ""
    return (", ".join(listed[:SHOWN_CODES]) or "none") + more
