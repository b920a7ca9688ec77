"""Times as files write them: their patterns, time zones, and the conversion to epoch seconds. Needs only numpy."""

from flts.times.format import TimeFormat, in_range, to_seconds
from flts.times.score import score_as_time
from flts.times.summer_time import looks_like_end_of_summer_time, looks_like_start_of_summer_time
from flts.times.zones import LocalTimes, to_local, to_utc, zone_of

__all__ = [
    "LocalTimes",
    "TimeFormat",
    "in_range",
    "looks_like_end_of_summer_time",
    "looks_like_start_of_summer_time",
    "score_as_time",
    "to_local",
    "to_seconds",
    "to_utc",
    "zone_of",
]
