"""The season of a series: one day, or one week if the step is too long for a day."""

from __future__ import annotations

from flts.forecasting.time_features import DAY_SECONDS, WEEK_DAYS


def season_steps(step_seconds: int, train_rows: int) -> int | None:
    """Return the season in rows: a day, or else a week, if the training rows contain two of it; or None.

    A season is a whole number of rows, at least two, because a season of one row would be persistence.
    """
    for seconds in (DAY_SECONDS, WEEK_DAYS * DAY_SECONDS):
        steps, remainder = divmod(seconds, step_seconds)
        if remainder == 0 and steps > 1 and train_rows >= 2 * steps:
            return steps
    return None
