"""Local times and UTC: both clock changes of a zone, exactly."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np
from numpy.typing import NDArray

from flts.errors import RejectedError

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

SECOND = 1_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CHUNK_ROWS = 1 << 20
"""Rows that are converted at a time, so that intermediate arrays stay small."""
STEPS_SEEN = 100_000
"""Rows from which the usual step of a file is found."""
SCAN_DAYS = 2
"""Days between two looks at a zone's offset. No zone changes its clock twice within two days."""
FIRST_ZONE_YEAR = 1800
"""Year before which no zone changes its clock: the zone database begins with the standard times of railways."""
RULE_YEAR = 2100
"""Year from which on a rule makes all changes; from there on the changes repeat with the calendar."""
CALENDAR_YEARS, CALENDAR_DAYS = 400, 146_097
"""Years after which the calendar repeats with its weekdays, and their days."""
_FIRST_YEAR, _LAST_YEAR = 1, 9998  # datetime cannot represent the neighbouring years in every zone


@dataclass(frozen=True, slots=True, eq=False)
class _Changes:
    """A zone's clock changes within some years: the offset ``offsets[i + 1]`` begins at ``at[i]``."""

    at: IntArray
    """(n,) microseconds UTC."""
    offsets: IntArray
    """(n + 1,) microseconds that the local clock is ahead of UTC."""


@dataclass(frozen=True, slots=True, eq=False)
class LocalTimes:
    """Local times that were converted to UTC."""

    micros: IntArray
    """(n,) microseconds UTC."""
    guessed: tuple[int, ...] = ()
    """Positions of times in a repeated hour that were read as summer time, because nothing shows which pass it is."""


def zone_of(name: str) -> ZoneInfo:
    """Return the zone with an IANA name.

    Raises
    ------
    RejectedError
        ``bad_setting`` for ``TIME_ZONE``; the message names similar zones.
    """
    try:
        return _zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        names = sorted(available_timezones())
        lower = {known.lower(): known for known in names}
        tails = {known.lower().rsplit("/", 1)[-1]: known for known in names}
        text = name[:60].lower().replace(" ", "_")
        close = difflib.get_close_matches(text, [*lower, *tails], n=3, cutoff=0.6)
        found = dict.fromkeys(lower.get(match) or tails[match] for match in close)
        hint = f"; similar names: {', '.join(found)}" if found else "; an example is Europe/Berlin"
        msg = f"TIME_ZONE={name[:60]!r} is no IANA time zone{hint}"
        raise RejectedError(msg, code="bad_setting", field="TIME_ZONE") from None


def to_local(micros: IntArray, zone: str | None) -> IntArray:
    """Return what a zone's clock shows at UTC times, as microseconds; without a zone the clock shows UTC."""
    return micros + offsets_at(micros, zone)


def offsets_at(micros: IntArray, zone: str | None) -> IntArray:
    """Return the microseconds that a zone's clock is ahead of UTC at UTC times."""
    if zone is None or len(micros) == 0:
        return np.zeros(len(micros), np.int64)
    changes = _changes(zone, micros)
    return changes.offsets[np.searchsorted(changes.at, micros, side="right")]


def to_utc(
    local: IntArray, zone: str, *, whole_days: bool = False, field: str = "TIME_ZONE", unit: str = "row"
) -> LocalTimes:
    """Return the UTC times at which a zone's clock showed the local times.

    The order of the rows decides on a time of the repeated hour in autumn: the first pass is summer time. If the rows
    pass it once, the steps to the neighbouring rows decide, and otherwise it is summer time.

    Parameters
    ----------
    local : (n,)
        Microseconds since 1970 on the local clock, ascending or descending, in the file's order.
    whole_days
        Whether the times are days. A day whose midnight does not exist then begins after the clock change.
    field
        ``field`` of the error, the time column.

    Raises
    ------
    RejectedError
        ``no_such_time`` if the local clock never showed a time; the message names the row and the zone.
    """
    if len(local) == 0:
        return LocalTimes(local)
    changes = _changes(zone, local)
    micros = np.empty_like(local)
    found: list[_Special] = []
    for start in range(0, len(local), CHUNK_ROWS):
        stop = start + CHUNK_ROWS
        micros[start:stop], special = _convert(local[start:stop], changes, start)
        if special is not None:
            found.append(special)
    if not found:
        return LocalTimes(micros)
    rows, change, shift = (
        np.concatenate(parts) for parts in zip(*((part.rows, part.change, part.shift) for part in found), strict=True)
    )
    skipped = shift > 0
    if skipped.any():
        if not whole_days:
            _refuse_skipped(local, int(rows[skipped][0]), zone, field, unit)
        micros[rows[skipped]] = changes.at[change[skipped]]
    repeated = shift < 0
    if whole_days or not repeated.any():
        return LocalTimes(micros)
    return _resolve(local, micros, rows[repeated], change[repeated], -shift[repeated])


@dataclass(frozen=True, slots=True, eq=False)
class _Special:
    """Rows in an hour that a clock change skips or repeats."""

    rows: IntArray
    change: IntArray
    """Positions of the clock changes."""
    shift: IntArray
    """Microseconds that the clock was advanced; negative in autumn."""


def _convert(local: IntArray, changes: _Changes, first_row: int) -> tuple[IntArray, _Special | None]:
    """Return UTC times by the offset before the next clock change, and the rows for which it may be another."""
    before, after = changes.offsets[:-1], changes.offsets[1:]
    # The position is the same for all times before a change and within its skipped or repeated hour.
    at = np.searchsorted(changes.at + np.maximum(before, after), local, side="right")
    micros = local - changes.offsets[at]
    starts = np.append(changes.at + np.minimum(before, after), np.iinfo(np.int64).max)
    special = np.flatnonzero(local >= starts[at])
    if len(special) == 0:
        return micros, None
    change = at[special]
    return micros, _Special(special + first_row, change, (after - before)[change])


def _refuse_skipped(local: IntArray, row: int, zone: str, field: str, unit: str) -> None:
    moment = np.datetime64(int(local[row]) // SECOND, "s")
    msg = (
        f"{unit} {row + 1}, column {field}: the clocks of {zone} never showed {str(moment).replace('T', ' ')}, because "
        "summer time began: set TIME_ZONE to the zone whose clock wrote the times (UTC if they have no summer time)"
    )
    raise RejectedError(msg, code="no_such_time", field=field)


def _resolve(local: IntArray, summer: IntArray, rows: IntArray, change: IntArray, shift: IntArray) -> LocalTimes:
    """Add the clock's shift to the times of the second pass through a repeated hour."""
    micros = summer.copy()
    steps = np.diff(local[:STEPS_SEEN])
    descending = bool((steps < 0).sum() > (steps > 0).sum())
    usual = _usual_step(steps)
    guessed: list[int] = []
    # A run is a sequence of neighbouring rows in one repeated hour; a file of several series has a run for each series.
    cuts = np.flatnonzero((np.diff(rows) != 1) | (np.diff(change) != 0)) + 1
    for run, lengths in zip(np.split(rows, cuts), np.split(shift, cuts), strict=True):
        length = int(lengths[0])
        ordered = run[::-1] if descending else run
        second = _second_pass(local[ordered])
        if second is None:
            second = _by_neighbours(local, summer, run, length, usual, descending=descending)
        if second is None:
            guessed.extend(int(row) for row in run)
            continue
        micros[ordered[second]] += length
    return LocalTimes(micros, tuple(guessed))


def _second_pass(times: IntArray) -> BoolArray | None:
    """Return which times of an ascending run are in the second pass, or None if the run is one pass."""
    steps = np.diff(times)
    back = np.flatnonzero(steps < 0)
    second = np.zeros(len(times), np.bool_)
    if len(back):
        second[int(back[0]) + 1 :] = True
        return second
    equal = steps == 0
    if not equal.any():
        return None
    # The rows are sorted by the local clock, so that the two passes alternate.
    second[1:] = equal
    return second


def _by_neighbours(
    local: IntArray, summer: IntArray, run: IntArray, length: int, usual: int, *, descending: bool
) -> BoolArray | None:
    first, last = int(run[0]), int(run[-1])
    if descending:
        earlier = None if last + 1 >= len(local) else int(summer[last] - summer[last + 1])
        later = None if first == 0 else int(summer[first - 1] - summer[first])
    else:
        earlier = None if first == 0 else int(summer[first] - summer[first - 1])
        later = None if last + 1 >= len(local) else int(summer[last + 1] - summer[last])
    if usual == 0 or (earlier is None and later is None):
        return None
    is_summer = earlier in (None, usual) and later in (None, usual)
    is_winter = (earlier is None or earlier + length == usual) and (later is None or later - length == usual)
    if is_summer == is_winter:
        return None
    return np.full(len(run), is_winter)


def _usual_step(steps: IntArray) -> int:
    values, counts = np.unique(np.abs(steps[steps != 0]), return_counts=True)
    return int(values[counts.argmax()]) if len(values) else 0


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _changes(zone: str, micros: IntArray) -> _Changes:
    """Return the clock changes of the years of some times, and of a day before and after them."""
    first, last = (
        int(year)
        for year in np.array([micros.min() - DAY, micros.max() + DAY])
        .astype("datetime64[us]")
        .astype("datetime64[Y]")
        .astype(np.int64)
        + 1970
    )
    first, last = (min(max(year, _FIRST_YEAR + 1), _LAST_YEAR) for year in (first, last))
    info = zone_of(zone)
    start = datetime(first, 1, 1, tzinfo=UTC)
    found = [change for year in range(first, last + 1) for change in _changes_of_year(zone, year)]
    offsets = [_offset(info, start), *(offset for _, offset in found)]
    return _Changes(np.array([at for at, _ in found], np.int64), np.array(offsets, np.int64))


@lru_cache(maxsize=4096)
def _changes_of_year(zone: str, year: int) -> tuple[tuple[int, int], ...]:
    """Return a zone's clock changes of a year as (microseconds UTC, new offset)."""
    if year < FIRST_ZONE_YEAR:
        return ()
    if year >= RULE_YEAR + CALENDAR_YEARS:
        shift = CALENDAR_DAYS * DAY
        return tuple((at + shift, offset) for at, offset in _changes_of_year(zone, year - CALENDAR_YEARS))
    info = zone_of(zone)
    found = []
    for start, stop in _steps_of_year(year):
        at = start
        while _offset(info, at) != _offset(info, stop):
            at = _next_change(info, at, stop)
            found.append(((at - EPOCH) // timedelta(microseconds=1), _offset(info, at)))
    return tuple(found)


def _steps_of_year(year: int) -> Iterator[tuple[datetime, datetime]]:
    start, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    while start < end:
        stop = min(start + timedelta(days=SCAN_DAYS), end)
        yield start, stop
        start = stop


def _next_change(info: ZoneInfo, start: datetime, stop: datetime) -> datetime:
    """Return the second at which the offset differs from that at ``start``, by bisection."""
    offset = _offset(info, start)
    low, high = 0, int((stop - start).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _offset(info, start + timedelta(seconds=middle)) == offset else (low, middle)
    return start + timedelta(seconds=high)


def _offset(info: ZoneInfo, moment: datetime) -> int:
    offset = moment.astimezone(info).utcoffset()
    return 0 if offset is None else offset // timedelta(microseconds=1)
