"""Files are trained on, judged and forecast as they are: rows on a calendar, and files as people have them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from _pytest.mark import ParameterSet

from tests.calendar_files import BERLIN_HOURS, BUSINESS_DAYS, MONTHS, OPENING_HOURS, CalendarFile
from tests.case_files import CASES, Case, Read
from tests.pipeline import Pipeline
from tests.targets import TARGET

pytestmark = pytest.mark.timeout(300)
HORIZON = 30
ALL = (MONTHS, BUSINESS_DAYS, OPENING_HOURS, BERLIN_HOURS)
FILES = {file.name: file for file in (ALL if TARGET == "embedded" else (MONTHS,))}
AS_THEY_ARE = {
    case.name: case
    for case in CASES
    if case.name in {"day-first", "unicode-text-of-excel", "dots-for-thousands", "workbook", "two-values-one-time"}
    and TARGET == "embedded"
}
SHORT = ("months", "opening-hours", "berlin-hours", "workbook")
"""Files of `make test`: steps of unequal length, hours outside the calendar, summer time, a file that is no text."""


def files(of: Mapping[str, Any]) -> list[ParameterSet]:
    return [pytest.param(one, id=name, marks=[] if name in SHORT else [pytest.mark.long]) for name, one in of.items()]


@pytest.fixture(scope="module")
def decided(
    request: pytest.FixtureRequest, stack: Pipeline, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """Return the decided runs of the selected tests' files, which were trained side by side."""
    tests = [item for item in request.session.items if isinstance(item, pytest.Function) and item.path == request.path]
    names = {one.name for item in tests for one in item.callspec.params.values()}
    folder = tmp_path_factory.mktemp("calendars")
    paths = {name: (file.write(folder), file.settings) for name, file in FILES.items()}
    paths |= {name: (_stored(case, folder), case.settings) for name, case in AS_THEY_ARE.items()}
    runs = {
        name: stack.upload(name, path, settings={"EPOCHS": 1, **more})
        for name, (path, more) in paths.items()
        if name in names
    }
    return {name: stack.wait_decided(run_id) for name, run_id in runs.items()}


@pytest.mark.parametrize("file", files(FILES))
def test_a_forecast_has_the_times_of_the_calendar(
    stack: Pipeline, decided: dict[str, dict[str, Any]], file: CalendarFile
) -> None:
    run = decided[file.name]
    assert run["outcome"] == "promoted", run["decision"]
    stack.wait_served(file.name, run["decision"]["run_id"])
    with stack.gateway as client:
        body = client.get(f"/datasets/{file.name}/tail").json()

    answer = stack.predict(body | {"inference_length": HORIZON})

    assert answer.status_code == 200, answer.text
    zone = file.settings.get("TIME_ZONE", "UTC")
    times = [_instant(row["ts"], zone) for row in answer.json()["predictions"]]
    last = file.moments()[-1].astimezone(UTC)
    hours = [last + timedelta(hours=at) for at in range(1, 24 * 31 * HORIZON)]
    assert times == [hour for hour in hours if file.contains(hour)][:HORIZON]


@pytest.mark.parametrize("file", files(FILES))
def test_no_row_outside_the_calendar_is_scored(
    stack: Pipeline, decided: dict[str, dict[str, Any]], file: CalendarFile
) -> None:
    board = decided[file.name]["scoreboard"]

    # A fifth of the rows is the test, and a few more are holidays that the file misses. With weekends it would be 0.28.
    assert board["origins"] <= file.rows * 0.22
    champion = stack.champion(file.name)
    assert champion is not None
    assert champion["step"] == file.step


@pytest.mark.parametrize("case", files(AS_THEY_ARE))
def test_a_file_as_people_have_it_is_forecast(stack: Pipeline, decided: dict[str, dict[str, Any]], case: Case) -> None:
    run = decided[case.name]
    assert isinstance(case.right, Read)
    assert run["outcome"] == "promoted", run["decision"]
    stack.wait_served(case.name, run["decision"]["run_id"])

    answer = stack.forecast(stack.question(case.name))

    before, last = (datetime.fromtimestamp(int(at), UTC) for at in case.right.times[-2:])
    assert _instant(answer["predictions"][0]["ts"]) == last + (last - before)


def _stored(case: Case, folder: Path) -> Path:
    path = folder / case.name
    path.write_bytes(case.train)
    return path


def _instant(text: str, zone: str = "UTC") -> datetime:
    """Return the time that a forecast names in any of the forms of the files; without an offset it is in the zone."""
    for form in ("%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d", "%d.%m.%Y %H:%M:%S"):
        with suppress(ValueError):
            when = datetime.strptime(text, form)  # noqa: DTZ007 - the zone is added below
            return (when if when.tzinfo else when.replace(tzinfo=ZoneInfo(zone))).astimezone(UTC)
    raise AssertionError(text)
