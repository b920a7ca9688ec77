"""The bounds of forecasts as settings: their forms, and their part of train_hash."""

from __future__ import annotations

import pytest

from flts.contracts.events import Scalar
from flts.errors import RejectedError
from flts.settings import WindowSettings


@pytest.mark.parametrize(
    ("given", "rules"),
    [
        ({}, ("auto", None)),
        ({"LOWER_BOUND": " None "}, (None, None)),
        ({"LOWER_BOUND": 0, "UPPER_BOUND": "1e2"}, (0.0, 100.0)),
        ({"LOWER_BOUND": -2.5, "UPPER_BOUND": -2.5}, (-2.5, -2.5)),
    ],
)
def test_a_bound_is_a_word_or_a_number(
    given: dict[str, Scalar], rules: tuple[float | str | None, float | None]
) -> None:
    assert WindowSettings().with_overrides(given).limit_rules == rules


@pytest.mark.parametrize(
    ("given", "field", "message"),
    [
        ({"LOWER_BOUND": "zero"}, "LOWER_BOUND", "must be a number or auto or none"),
        ({"UPPER_BOUND": "auto"}, "UPPER_BOUND", "must be a number or none"),
        ({"UPPER_BOUND": "inf"}, "UPPER_BOUND", "must be a number or none"),
        ({"LOWER_BOUND": "nan"}, "LOWER_BOUND", "must be a number"),
        ({"LOWER_BOUND": 5, "UPPER_BOUND": 4}, "UPPER_BOUND", "is less than LOWER_BOUND, 5"),
    ],
)
def test_other_bounds_are_refused_with_the_setting(given: dict[str, Scalar], field: str, message: str) -> None:
    with pytest.raises(RejectedError, match=message) as refused:
        WindowSettings().with_overrides(given)

    assert (refused.value.code, refused.value.field) == ("bad_setting", field)


def test_the_point_enters_train_hash_only_as_the_median() -> None:
    default = WindowSettings().hashed(WindowSettings)

    assert "point" not in default
    assert WindowSettings(point="mean").hashed(WindowSettings) == default
    assert WindowSettings(point="median").hashed(WindowSettings) == default | {"point": "median"}


def test_a_run_overrides_the_point() -> None:
    assert WindowSettings().with_overrides({"POINT": "median"}).point == "median"
    with pytest.raises(RejectedError) as refused:
        WindowSettings().with_overrides({"POINT": "mode"})
    assert refused.value.field == "POINT"


def test_bounds_enter_train_hash_only_with_another_value_than_their_default() -> None:
    default = WindowSettings().hashed(WindowSettings)

    assert "lower_bound" not in default
    assert WindowSettings(lower_bound="AUTO", upper_bound="None").hashed(WindowSettings) == default
    assert WindowSettings(lower_bound="none").hashed(WindowSettings) == default | {"lower_bound": "none"}
    assert WindowSettings(upper_bound="100").hashed(WindowSettings) == default | {"upper_bound": "100.0"}
    assert WindowSettings(lower_bound="-0").hashed_answer == WindowSettings(lower_bound="0.0").hashed_answer
