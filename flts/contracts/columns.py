"""Column names that have a meaning in uploads and in forecast requests."""

from __future__ import annotations

TIME_COLUMNS = ("time", "timestamp", "ts", "date")
"""A column with one of these names contains the times of the rows."""
