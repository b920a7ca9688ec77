"""Each upload that preprocess accepts ends in a served model: LINEAR, or the best baseline."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval_container.judging import Judgement
from flts.bundle.load import fetch_bundle
from flts.contracts.events import Scalar
from flts.errors import RejectedError
from flts.forecasting.series import BoolArray, FloatArray
from flts.storage.filesystem import FilesystemStore
from tests.case_files import Case, Refused
from tests.case_files.calendars import calendar_cases
from tests.case_files.rows import row_cases
from tests.in_process import judged_upload
from tests.known_ahead import DAYS, sales, with_holidays
from tests.preprocessing import START, make_csv
from tests.serving import answer_of

CASES = [case for cases in (calendar_cases, row_cases) for case in cases() if not isinstance(case.right, Refused)]
"""Files whose rows differ; the others of `tests.case_files` write the same rows in other forms."""
HOUR, DAY = 3_600, 86_400
START_DAY = int(START.timestamp()) // DAY


@pytest.fixture(autouse=True)
def _no_child_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flts.bundle.proof.prove", lambda *_: None)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_file_as_people_have_it_ends_in_a_served_model(case: Case, tmp_path: Path) -> None:
    judgement = judged_upload(tmp_path, case.train, case.test, **case.settings)

    assert judgement.choice.decision == "promoted"
    assert judgement.card is not None
    assert judgement.card.score <= 1


def wave(rows: int, columns: int = 1, *, season: int = 24) -> FloatArray:
    noise = np.random.default_rng(rows).normal(0, 0.3, (rows, columns))
    values: FloatArray = 10 + 3 * np.sin(2 * np.pi * np.arange(rows)[:, None] / season + np.arange(columns)) + noise
    return values


def changed(change: Callable[[FloatArray], None], rows: int = 400, columns: int = 2) -> FloatArray:
    values = wave(rows, columns)
    change(values)
    return values


def _set(at: tuple[slice, slice], value: float) -> Callable[[FloatArray], None]:
    def change(values: FloatArray) -> None:
        values[at] = value

    return change


def _lose(share: float, first: int) -> Callable[[FloatArray], None]:
    def change(values: FloatArray) -> None:
        values[first:][np.random.default_rng(1).random(values[first:].shape) < share] = np.nan

    return change


EVERY = slice(None)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(changed(_set((slice(0, 320), slice(1, 2)), 5)), id="one target is constant in training"),
        pytest.param(changed(_set((slice(320, None), EVERY), 5)), id="the test is constant"),
        pytest.param(changed(_set((slice(160, 320), EVERY), 5)), id="constant in half of the training rows"),
        pytest.param(changed(_set((slice(3, None), EVERY), 5)), id="constant but for three rows"),
        pytest.param(changed(_set((slice(320, 399), EVERY), np.nan)), id="one test row has values"),
        pytest.param(changed(_set((slice(320, None), slice(1, 2)), np.nan)), id="one target has no test value"),
        pytest.param(changed(_lose(0.8, 320)), id="a fifth of the test cells"),
        pytest.param(changed(_lose(0.3, 0)), id="seven tenths of all cells"),
        pytest.param(np.arange(300.0)[:, None], id="a straight line"),
        pytest.param(np.sin(2 * np.pi * np.arange(300) / 24)[:, None], id="a season without noise"),
        pytest.param(wave(500) * 1e12, id="large values"),
    ],
)
def test_unusual_values_end_in_a_served_model(values: FloatArray, tmp_path: Path) -> None:
    judgement = judged_upload(tmp_path, make_csv(values, step=HOUR))

    assert judgement.choice.decision == "promoted"


def test_a_data_set_without_a_varying_target_is_served_its_constants(tmp_path: Path) -> None:
    choice = judged_upload(tmp_path, make_csv(np.full((300, 1), 5.0), step=HOUR)).choice

    assert (choice.decision, choice.reasons[0].code) == ("promoted", "all_constant")


@pytest.mark.parametrize("rows", [20, 27, 34])
def test_few_rows_end_in_a_served_model(rows: int, tmp_path: Path) -> None:
    judgement = judged_upload(tmp_path, make_csv(wave(rows, season=7), step=DAY))

    assert judgement.choice.decision == "promoted"
    last_value = judgement.scoreboard["references"][0]
    assert [each["code"] for each in last_value["warnings"]] == ["few_interval_windows"]


@pytest.mark.parametrize("rows", range(1, 26))
def test_a_series_of_each_length_has_an_answer_from_three_rows_on(rows: int, tmp_path: Path) -> None:
    values = 10 + np.random.default_rng(rows).normal(0, 1, (rows, 2)).cumsum(axis=0)
    file = make_csv(values, step=DAY)
    if rows < 3:
        with pytest.raises(RejectedError, match="cannot be split") as refused:
            judged_upload(tmp_path, file)
        assert refused.value.code == "too_few_rows"
        return

    judgement = judged_upload(tmp_path, file)

    assert judgement.choice.decision == "promoted"
    assert judgement.horizon_steps == max(1, min(rows // 10, math.ceil(rows / 5) // 2))
    if rows >= 20:
        return
    why = f"{rows} rows are too few to compare forecasts, so the last value is served: PERSISTENCE"
    assert judgement.choice.why_baseline == why
    answer = _served(judgement, values, tmp_path)
    bounded = rows >= 18  # of 14 training rows nine are forecast in the folds
    assert answer["calibrated_steps"] == int(bounded)
    [step] = answer["predictions"]
    for at, name in enumerate(("a", "b")):
        assert step[name] == pytest.approx(values[-1, at], rel=1e-6)
        assert (step[f"{name}_lower"] is not None, step[f"{name}_upper"] is not None) == (bounded, bounded)


@pytest.mark.parametrize(
    ("values", "settings"),
    [
        pytest.param(np.arange(4.0)[:, None], {}, id="a straight line"),
        pytest.param(np.array([5.0, 5, 6])[:, None], {}, id="constant but for the test"),
        pytest.param(np.array([[1, 2.0], [np.nan, 3], [4, 5], [np.nan, 6], [5, 5], [4, 4]]), {}, id="missing cells"),
        pytest.param(wave(17, 2), {"LAGS_ENABLE": True, "LAGS_N": 2}, id="lags"),
        pytest.param(wave(9), {"HORIZON": "24"}, id="a longer horizon than the rows"),
        pytest.param(wave(9), {"POINT": "median"}, id="the median"),
        pytest.param(wave(300), {"SAMPLE_TRAIN_ROWS": 5}, id="a sample of five rows"),
    ],
)
def test_unusual_short_series_end_in_a_served_model(
    values: FloatArray, settings: dict[str, Scalar], tmp_path: Path
) -> None:
    assert judged_upload(tmp_path, make_csv(values, step=HOUR), **settings).choice.decision == "promoted"


@pytest.mark.parametrize("rows", [10, 17])
@pytest.mark.parametrize("lengths", [{"INPUT_SEQ_LEN": 10}, {"OUTPUT_SEQ_LEN": 1}])
def test_lengths_that_are_asked_for_need_their_rows(rows: int, lengths: dict[str, Scalar], tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="training needs at least 14"):
        judged_upload(tmp_path, make_csv(wave(rows), step=HOUR), **lengths)


def test_a_run_with_the_median_is_scored_with_it(tmp_path: Path) -> None:
    skewed = np.random.default_rng(0).exponential(1.0, (400, 1))

    mean, median = (
        judged_upload(tmp_path / point, make_csv(skewed, step=HOUR), POINT=point, HORIZON="1")
        for point in ("mean", "median")
    )

    # The mean of the series is the best forecast; its median, ln 2, has the least absolute error.
    assert (mean.choice.winner, median.choice.winner) == ("MEAN", "MEAN")
    assert mean.card is not None
    assert median.card is not None
    assert median.card.mae < mean.card.mae
    assert median.card.rmse > mean.card.rmse
    assert median.winner is not None
    assert median.winner.forecaster is not None
    assert median.winner.forecaster.is_median


def _served(judgement: Judgement, values: FloatArray, folder: Path) -> dict[str, Any]:
    """Return the answer of /predict to the last row of a two-column daily series, with the promoted bundle."""
    assert judgement.winner is not None
    assert judgement.winner.event is not None
    assert judgement.winner.event.bundle is not None
    made = fetch_bundle(FilesystemStore(folder), judgement.winner.event.bundle)
    time = START + timedelta(days=len(values) - 1)
    data = {"time": [time.isoformat()], "a": [values[-1, 0]], "b": [values[-1, 1]]}
    return answer_of(made, json.dumps({"data": data}).encode(), folder / "champions")


@pytest.mark.parametrize(("rows", "horizon"), [(40, "1"), (60, "1"), (60, "2"), (500, "50")])
def test_short_and_long_horizons_end_in_a_served_model(rows: int, horizon: str, tmp_path: Path) -> None:
    judgement = judged_upload(tmp_path, make_csv(wave(rows), step=HOUR), HORIZON=horizon)

    assert (judgement.choice.decision, judgement.horizon_steps) == ("promoted", int(horizon))


AT = np.arange(1_000)


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param((AT % 28 < 8) & (AT < 500), id="pieces of 8 rows"),
        pytest.param((AT % 32 < 2) & (AT < 500), id="pieces of 2 rows"),
        pytest.param(AT % 40 >= 12, id="pieces of 28 rows"),
        pytest.param(AT % 60 >= 20, id="pieces of 40 rows"),
        pytest.param((AT < 780) | (AT > 830), id="a gap before the test"),
        pytest.param((AT < 880) | (AT > 930), id="a gap in the test"),
    ],
)
def test_rows_with_gaps_end_in_a_served_model(kept: BoolArray, tmp_path: Path) -> None:
    header, *lines = make_csv(wave(1_000, 2), step=HOUR).splitlines()
    file = b"\n".join([header, *(line for line, keep in zip(lines, kept, strict=True) if keep), b""])

    assert judged_upload(tmp_path, file).choice.decision == "promoted"


def test_a_short_test_file_from_a_later_time_ends_in_a_served_model(tmp_path: Path) -> None:
    train, test = make_csv(wave(1_000), step=HOUR), make_csv(wave(60), first_row=5_000, step=HOUR)

    choice = judged_upload(tmp_path, train, test).choice

    assert (choice.decision, choice.winner) == ("promoted", "SEASONAL_NAIVE")


def test_values_known_ahead_lower_the_score_of_the_served_model(tmp_path: Path) -> None:
    series = sales(700)
    file = make_csv(series.values, names=series.columns, step=DAY)

    without = judged_upload(tmp_path / "without", file, IGNORE_COLUMNS="promotion,dice")
    judgement = judged_upload(tmp_path / "with", file, FUTURE_COLUMNS="promotion", PAST_COLUMNS="dice")

    assert (judgement.choice.decision, judgement.choice.winner) == ("promoted", "LINEAR")
    assert judgement.card is not None
    assert without.card is not None
    assert judgement.card.score < 0.5 * without.card.score


def test_holidays_lower_the_score_of_the_served_model(tmp_path: Path) -> None:
    series = with_holidays(1_100, DAYS, 8.0, first_day=START_DAY)
    file = make_csv(series.values, names=series.columns, step=DAY)

    without = judged_upload(tmp_path / "without", file)
    judgement = judged_upload(tmp_path / "with", file, HOLIDAYS="DE")

    assert (judgement.choice.decision, judgement.choice.winner) == ("promoted", "LINEAR")
    assert judgement.card is not None
    assert without.card is not None
    assert judgement.card.score < 0.5 * without.card.score
