from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from flts.errors import RejectedError
from flts.ingest.holiday_dates import DAYS_AHEAD, holiday_days

EPOCH = date(1970, 1, 1).toordinal()


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def dates(days: tuple[int, ...]) -> list[str]:
    return [date.fromordinal(day + EPOCH).isoformat() for day in days]


def test_the_days_around_a_christmas_are_told_apart() -> None:
    days = holiday_days(("DE",), seconds("2022-12-01"), seconds("2022-12-31"))

    december = {name: [day for day in dates(found) if day < "2023-01-03"] for name, found in days.items()}
    assert december == {
        "holiday_DE": ["2022-12-26"],
        "holiday_DE_weekend": ["2022-12-25", "2023-01-01"],
        "holiday_DE_before": [],  # 25 December is a holiday itself
        "holiday_DE_after": ["2022-12-27"],
    }


def test_holidays_are_known_two_years_ahead_and_not_before_the_rows() -> None:
    first, last = seconds("2024-03-01T05:00"), seconds("2024-04-30T20:00")

    days = holiday_days(("US",), first, last)

    every = [day for found in days.values() for day in found]
    assert min(every) >= first // 86_400
    assert last // 86_400 + DAYS_AHEAD - 90 < max(every) <= last // 86_400 + DAYS_AHEAD


def test_a_region_has_more_holidays_than_its_country_and_several_codes_stand_side_by_side() -> None:
    days = holiday_days(("DE", "DE-BY"), seconds("2024-01-01"), seconds("2024-12-31"))

    assert "2024-01-06" not in dates(days["holiday_DE_weekend"])
    assert "2024-01-06" in dates(days["holiday_DE-BY_weekend"])  # Epiphany, a Saturday
    assert set(days["holiday_DE"]) < set(days["holiday_DE-BY"])


def test_a_weekend_is_that_of_the_country() -> None:
    days = holiday_days(("SA",), seconds("2024-01-01"), seconds("2024-12-31"))

    fridays = [day for day in days["holiday_SA"] if (day + 3) % 7 == 4]
    assert fridays == []


def test_rows_thousands_of_years_apart_are_no_endless_work() -> None:
    days = holiday_days(("DE",), seconds("2022-12-01"), seconds("9999-12-31"))

    assert dates(days["holiday_DE"])[0] == "2022-12-26"
    assert max(dates(days["holiday_DE"])) < "2500"


def test_without_codes_there_are_no_days() -> None:
    assert holiday_days((), 0, 1) == {}


@pytest.mark.parametrize(
    ("code", "message"),
    [("XX", "XX is no country whose holidays are known; known are AD"), ("DE-XX", "XX is no region of DE")],
)
def test_an_unknown_code_is_refused(code: str, message: str) -> None:
    with pytest.raises(RejectedError, match=message) as refused:
        holiday_days((code,), 0, 86_400)

    assert (refused.value.code, refused.value.field) == ("bad_setting", "HOLIDAYS")
