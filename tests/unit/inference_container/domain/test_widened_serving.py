"""Intervals of answers, widened by forecasts that have matured in the stored rows or in those of a request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flts.bundle.format import Bundle
from flts.bundle.widening import widened_by
from flts.forecasting.series import FloatArray, Series
from inference_container.domain.champion import Champion
from tests.made_bundles import made_bundle, skewed_series
from tests.serving import answer_of, body_of, champion_of

TRAIN_ROWS, KEYS = 600, ("high", "low")
EVERY = slice(None)


def bundle() -> tuple[Bundle, bytes]:
    return made_bundle("LINEAR", TRAIN_ROWS)


def wild_series(rows: int = 400) -> Series:
    """Return the training rows and rows after them that are harder to forecast."""
    train = skewed_series(TRAIN_ROWS)
    later = train.values[-rows:] + 3 * train.values.std(axis=0) * np.abs(
        np.random.default_rng(5).normal(size=(rows, train.values.shape[1]))
    )
    step = int(train.times[1] - train.times[0])
    times = np.concatenate([train.times, train.times[-1] + step * np.arange(1, rows + 1)])
    return Series(times, train.columns, np.concatenate([train.values, later]), train.grid)


WILD = wild_series()


def with_history(champion: Champion, series: Series) -> Champion:
    return champion.with_history(series.columns, series.times, series.values)


def width(answer: dict[str, Any]) -> FloatArray:
    return np.array([[row[f"{key}_upper"] - row[f"{key}_lower"] for key in KEYS] for row in answer["predictions"]])


def test_the_champion_s_intervals_are_widened_when_it_gets_its_history() -> None:
    champion = champion_of(bundle())

    widened = with_history(champion, WILD)

    expected = widened_by(champion.forecaster, WILD)
    assert expected is not None
    assert widened.intervals is not None
    np.testing.assert_array_equal(widened.intervals.values, expected.values)
    assert widened.offsets.shape == champion.offsets.shape
    assert (widened.offsets[:12, :, 2] > 1.2 * champion.offsets[:12, :, 2]).all()
    assert with_history(champion, WILD.rows(0, TRAIN_ROWS)).intervals is champion.intervals


def test_a_request_with_a_whole_path_of_its_own_is_widened_by_its_own_rows() -> None:
    champion = champion_of(bundle())
    required, steps = champion.needs.rows_required, champion.bundle.calibrated_steps

    assert champion.widened_by(WILD.rows(-required - steps + 1)) is None
    assert champion.widened_by(WILD.rows(0, TRAIN_ROWS + steps - 1)) is None  # the last path ends after these rows
    assert champion.widened_by(WILD.rows(-required - steps)) is not None
    assert replace(champion, inline=False).widened_by(WILD) is None
    stored = with_history(champion, WILD)
    assert stored.widened_by(WILD) is None  # the stored rows show the same
    assert with_history(champion, WILD.rows(0, len(WILD) - steps)).widened_by(WILD) is not None
    timed = champion_of(made_bundle("MEAN", TRAIN_ROWS))
    assert timed.widened_by(WILD) is None  # it reads no values


def test_bounds_and_quantiles_of_an_answer_are_those_of_the_widened_intervals(tmp_path: Path) -> None:
    levels = [0.05, 0.5, 0.95]
    required = champion_of(bundle()).needs.rows_required
    short = answer_of(bundle(), body_of(WILD, slice(-required, None), inference_length=8), tmp_path)

    body = body_of(WILD, slice(-required - 200, None), inference_length=8, quantiles=levels)
    long = answer_of(bundle(), body, tmp_path / "long")

    assert [row["high"] for row in long["predictions"]] == pytest.approx([row["high"] for row in short["predictions"]])
    assert (width(long) > 1.2 * width(short)).all()
    for row in long["predictions"]:
        for key in KEYS:
            assert (row[f"{key}_q0.05"], row[f"{key}_q0.95"]) == (row[f"{key}_lower"], row[f"{key}_upper"])


def test_an_answer_of_one_step_has_the_intervals_of_the_champion(tmp_path: Path) -> None:
    required = champion_of(bundle()).needs.rows_required

    short = answer_of(bundle(), body_of(WILD, slice(-required, None)), tmp_path)
    long = answer_of(bundle(), body_of(WILD, slice(-required - 200, None)), tmp_path / "long")

    assert width(long) == pytest.approx(width(short))


def test_few_forecasts_behind_the_intervals_are_a_warning_in_answers_and_in_the_list_of_models(tmp_path: Path) -> None:
    few, many = made_bundle("LINEAR", 150), bundle()
    [text] = {
        answer_of(few, body_of(skewed_series(150), EVERY), tmp_path)["interval_warning"],
        champion_of(few).describe()["interval_warning"],
    }

    assert "forecasts of the horizon without a common row" in text
    assert "interval_warning" not in answer_of(many, body_of(WILD, EVERY), tmp_path / "many")
    assert "interval_warning" not in champion_of(many).describe()
