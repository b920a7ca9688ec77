"""Column names that uploads and requests share."""

from __future__ import annotations

TIME_COLUMNS = ("time", "timestamp", "ts", "date")
"""A column of one of these names holds the times."""
