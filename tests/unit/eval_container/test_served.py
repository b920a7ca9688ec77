"""Each upload that preprocess accepts ends in a served model: LINEAR, or the best baseline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flts.forecasting.series import BoolArray, FloatArray
from tests.case_files import Case, Refused
from tests.case_files.calendars import calendar_cases
from tests.case_files.rows import row_cases
from tests.in_process import judged_upload
from tests.preprocessing import make_csv

CASES = [case for cases in (calendar_cases, row_cases) for case in cases() if not isinstance(case.right, Refused)]
"""Files whose rows differ; the others of `tests.case_files` write the same rows in other forms."""
HOUR, DAY = 3_600, 86_400


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


@pytest.mark.parametrize("rows", [18, 19, 20, 27, 34])
def test_few_rows_end_in_a_served_model(rows: int, tmp_path: Path) -> None:
    assert judged_upload(tmp_path, make_csv(wave(rows, season=7), step=DAY)).choice.decision == "promoted"


@pytest.mark.parametrize(("rows", "horizon"), [(40, "1"), (60, "1"), (60, "2"), (500, "50")])
def test_short_and_long_horizons_end_in_a_served_model(rows: int, horizon: str, tmp_path: Path) -> None:
    judgement = judged_upload(tmp_path, make_csv(wave(rows), step=HOUR), HORIZON=horizon)

    assert (judgement.choice.decision, judgement.horizon_steps) == ("promoted", int(horizon))


AT = np.arange(1_000)


@pytest.mark.parametrize(
    "kept",
    [
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
