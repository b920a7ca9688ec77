"""The limits of forecasts, from the training rows and from the bounds of a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flts.errors import RejectedError
from flts.forecasting.grid import FixedGrid
from flts.forecasting.limits import AUTOMATIC, LimitRules, find_limits, named_limits
from flts.forecasting.recipe import RecipeSpec, fit_recipe, transform
from flts.forecasting.series import Series
from flts.forecasting.splits import as_train

ROWS = np.column_stack([np.arange(40.0), np.arange(40.0) - 1, np.full(40, 7.0), np.arange(40.0) + 0.1])
NAMES = ("from_zero", "from_minus_one", "flat", "above")


def limits_of(rules: LimitRules, rows: np.ndarray = ROWS, **spec: Any) -> dict[str, tuple[float | None, float | None]]:
    series = Series(60 * np.arange(len(rows)), NAMES, rows, FixedGrid(60))
    recipe = fit_recipe(as_train(series), RecipeSpec(**spec))
    return dict(named_limits(recipe, find_limits(recipe, transform(recipe, series), rules)))


@pytest.mark.parametrize("scaler", ["MinMaxScaler", "StandardScaler", "RobustScaler", "none"])
def test_by_default_0_is_the_lower_limit_of_targets_without_a_negative_value(scaler: str) -> None:
    assert limits_of(AUTOMATIC, scaler=scaler, add_val=100.0) == {"from_zero": (0.0, None), "above": (0.0, None)}


def test_a_filled_cell_is_no_value() -> None:
    rows = ROWS.copy()
    rows[0, 1] = np.nan  # the only negative value

    assert set(limits_of(AUTOMATIC, rows)) == {"from_zero", "from_minus_one", "above"}


def test_numbers_are_the_limits_of_every_target_that_varies() -> None:
    assert limits_of((-1.0, 39.5)) == dict.fromkeys(("from_zero", "from_minus_one", "above"), (-1.0, 39.5))
    assert limits_of((None, 50.0)) == dict.fromkeys(("from_zero", "from_minus_one", "above"), (None, 50.0))
    assert limits_of(("auto", 50.0))["from_zero"] == (0.0, 50.0)
    assert limits_of((None, None)) == {}


@pytest.mark.parametrize(
    ("rules", "field", "message"),
    [
        ((0.0, None), "LOWER_BOUND", "LOWER_BOUND is 0, and from_minus_one has the value -1 in the training rows"),
        (("auto", 39.0), "UPPER_BOUND", "UPPER_BOUND is 39, and above has the value 39.1 in the training rows"),
    ],
)
def test_a_bound_that_the_training_rows_violate_is_refused(rules: LimitRules, field: str, message: str) -> None:
    with pytest.raises(RejectedError, match=message) as refused:
        limits_of(rules)

    assert (refused.value.code, refused.value.field) == ("bad_setting", field)


def test_rows_of_constants_have_no_limits() -> None:
    assert limits_of((5.0, 6.0), np.full((40, 4), 7.0)) == {}
