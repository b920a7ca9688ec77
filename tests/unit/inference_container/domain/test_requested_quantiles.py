"""`quantiles` in a request: their names, their numbers and their refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flts.bundle.format import Bundle
from flts.errors import RejectedError
from flts.forecasting.series import Series
from tests.made_bundles import made_bundle, skewed_series
from tests.serving import answer_of, body_of, clock_bundle, small_series, window_bundle

SERIES = skewed_series()


def asked(made: tuple[Bundle, bytes], home: Path, levels: Any, series: Series = SERIES) -> dict[str, Any]:
    return answer_of(made, body_of(series, quantiles=levels), home)


def refusal(made: tuple[Bundle, bytes], home: Path, levels: Any, series: Series = SERIES) -> RejectedError:
    with pytest.raises(RejectedError) as refused:
        asked(made, home, levels, series)
    return refused.value


@pytest.mark.parametrize(
    ("model_type", "point"),
    [("PERSISTENCE", "mean"), ("PERSISTENCE", "median"), ("MEAN", "mean"), ("MEAN", "median"), ("LINEAR", "median")],
)
def test_every_prediction_has_the_quantiles_of_every_target(tmp_path: Path, model_type: str, point: str) -> None:
    made = made_bundle(model_type, point=point)
    levels = [0.05, 0.1, 0.3, 0.5, 0.9, 0.95]

    rows = slice(-150, None)

    answer = answer_of(made, body_of(SERIES, rows, inference_length=40, quantiles=levels), tmp_path)
    plain = answer_of(made, body_of(SERIES, rows, inference_length=40), tmp_path / "plain")

    assert answer.pop("quantiles") == levels
    for row, without in zip(answer.pop("predictions"), plain.pop("predictions"), strict=True):
        for target in ("high", "low"):
            values = [row.pop(f"{target}_q{level!r}") for level in levels]
            assert values == sorted(values)
            assert (values[0], values[-1]) == (row[f"{target}_lower"], row[f"{target}_upper"])
            if point == "median":
                assert values[3] == row[target]
            if target == "high":
                assert values[0] >= 0  # the limit of a target that is never negative
        assert row == without
    assert set(answer) == set(plain)


def test_quantiles_are_the_forecast_plus_those_of_the_residuals(tmp_path: Path) -> None:
    # The residuals' quantiles of this bundle are -0.5 and 0.75 at 0.05 and 0.95; 0.5 is half of the way.
    made = window_bundle(small_series())

    answer = asked(made, tmp_path, [0.5, 0.95, 0.05], small_series())

    [row] = answer["predictions"]
    first = made[0].targets[0]
    found = [row[f"{first}_q{level}"] - row[first] for level in (0.05, 0.5, 0.95)]
    assert found == pytest.approx([-0.5, 0.125, 0.75])


def test_quantiles_without_intervals_are_null(tmp_path: Path) -> None:
    made = window_bundle(small_series(), calibrated=False)

    [row] = asked(made, tmp_path, [0.001, 0.5], small_series())["predictions"]

    assert {row[f"{made[0].targets[0]}_q{level}"] for level in (0.001, 0.5)} == {None}


def test_constants_are_their_own_quantiles_and_a_held_target_is_within_its_bounds(tmp_path: Path) -> None:
    values = small_series().values.copy()
    values[:, 0] = 7.0
    series = replace(small_series(), values=values)
    made = clock_bundle(series)
    name = series.columns[0]
    later = values.copy()
    later[-1, 0] = 9.0

    [same] = asked(made, tmp_path / "a", [0.1, 0.5, 0.9], series)["predictions"]
    [held] = asked(made, tmp_path / "b", [0.1, 0.5, 0.9], replace(series, values=later))["predictions"]

    assert [same[f"{name}_q{level}"] for level in (0.1, 0.5, 0.9)] == [7, 7, 7]
    assert [held[f"{name}_q{level}"] for level in (0.1, 0.5, 0.9)] == [7, 9, 9]


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([0], "0 is not between 0 and 1"),
        ([0.5, 1], "1 is not between 0 and 1"),
        ([-0.1], "-0.1 is not between"),
        ([0.1, 0.5, 0.1], "0.1 is given twice"),
        ([at / 100 for at in range(10, 31)], "at most 20 probabilities; got 21"),
        ([0.5, 0.001], "0.001 is outside of 0.01 to 0.99, the range of this champion's quantiles"),
        ([0.995], "0.995 is outside of 0.01 to 0.99"),
    ],
)
def test_other_probabilities_are_refused(tmp_path: Path, levels: list[float], message: str) -> None:
    error = refusal(made_bundle("PERSISTENCE"), tmp_path, levels)

    assert (error.code, error.field) == ("bad_quantiles", "quantiles")
    assert error.message.startswith("quantiles: ")
    assert message in error.message


@pytest.mark.parametrize("levels", [0.5, ["0.5"], [True], [None], None])
def test_what_is_no_list_of_numbers_is_refused(tmp_path: Path, levels: object) -> None:
    error = refusal(made_bundle("PERSISTENCE"), tmp_path, levels)

    assert error.code == "bad_request"
    assert str(error.field).startswith("quantiles")


def test_the_name_of_a_column_is_not_taken_for_a_quantile(tmp_path: Path) -> None:
    series = small_series()
    names = list(series.columns)
    names[1] = f"{names[0]}_q0.1"
    series = replace(series, columns=tuple(names))
    made = window_bundle(series)

    error = refusal(made, tmp_path, [0.1], series)

    assert error.code == "bad_quantiles"
    assert f"{names[1]} is the name of a column" in error.message
    assert f"{names[1]}_q0.2" in asked(made, tmp_path / "other", [0.2], series)["predictions"][0]


def test_no_quantiles_change_nothing(tmp_path: Path) -> None:
    made = made_bundle("PERSISTENCE")

    with_none, without = asked(made, tmp_path / "a", []), answer_of(made, body_of(SERIES), tmp_path / "b")

    assert {**with_none, "run_id": ""} == {**without, "run_id": ""}


def test_numbers_of_one_name_are_distinct(tmp_path: Path) -> None:
    levels = [0.1, 0.1000001]

    row = asked(made_bundle("PERSISTENCE"), tmp_path, levels)["predictions"][0]

    assert np.isfinite([row["high_q0.1"], row["high_q0.1000001"]]).all()
    assert json.dumps(levels) == "[0.1, 0.1000001]"
