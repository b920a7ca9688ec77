"""Input files as people have them, with the right outcome of each. All are made here, with fixed seeds."""

from __future__ import annotations

from tests.case_files.calendars import calendar_cases
from tests.case_files.case import Case, Read, Refused
from tests.case_files.dialects import dialect_cases
from tests.case_files.rows import row_cases
from tests.case_files.times import time_cases

CASES = tuple(case for cases in (calendar_cases, time_cases, dialect_cases, row_cases) for case in cases())

__all__ = ["CASES", "Case", "Read", "Refused"]
