from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flts.errors import RejectedError
from flts.forecasting.fitted import LAYOUTS_REMEMBERED, FittedRecipe
from flts.forecasting.grid import MonthGrid
from flts.forecasting.recipe import RecipeSpec, fit_recipe
from flts.forecasting.splits import as_train
from tests.made_series import make_series


def a_recipe(seed: int = 0, **settings_given: Any) -> FittedRecipe:
    return fit_recipe(as_train(make_series(50, seed=seed)), RecipeSpec(**settings_given))


@given(seed=st.integers(0, 10_000), clip=st.booleans(), lags=st.booleans())
@settings(deadline=None, max_examples=30)
def test_a_recipe_survives_json_to_the_last_bit(seed: int, clip: bool, lags: bool) -> None:
    recipe = a_recipe(seed, clip_enable=clip, lags_enable=lags, scaler="StandardScaler")

    copy = FittedRecipe.from_dict(json.loads(json.dumps(recipe.to_dict(), allow_nan=False)))

    assert copy == recipe
    assert hash(copy) == hash(recipe)


def test_a_recipe_of_another_version_is_refused() -> None:
    others: tuple[Any, ...] = ({**a_recipe().to_dict(), "version": 3}, [], None)
    for other in others:
        with pytest.raises(RejectedError) as refused:
            FittedRecipe.from_dict(other)
        assert refused.value.code == "recipe_version"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fill", [1.0, 2.0]),
        ("fill", [1.0, 2.0, float("nan")]),
        ("scale", [1.0, 0.0, 1.0]),
        ("scale", [1.0, -1.0, 1.0]),
        ("offset", ["1", "2", "3"]),
        ("offset", [True, 2.0, 3.0]),
        ("add", float("inf")),
        ("columns", ["down", "down", "up"]),
        ("columns", "abc"),
        ("columns", [1, 2, 3]),
        ("lags", [0]),
        ("lags", [1.5]),
        ("targets", []),
        ("targets", ["nobody"]),
        ("constants", {"nobody": 1.0}),
        ("constants", []),
        ("time_features", 1),
        ("step_seconds", 0),
        ("clip_lower", [1.0, 2.0, 3.0]),
        ("dropped", {"x": None}),
    ],
)
def test_a_recipe_with_a_senseless_field_is_refused_naming_it(field: str, value: object) -> None:
    with pytest.raises(RejectedError) as refused:
        FittedRecipe.from_dict({**a_recipe().to_dict(), field: value})

    assert (refused.value.code, refused.value.field) == ("bad_recipe", field)


def test_a_recipe_of_the_release_before_states_no_gap_and_gets_the_default() -> None:
    values = a_recipe().to_dict()

    assert "max_gap_steps" not in values
    assert FittedRecipe.from_dict(values) == a_recipe()
    other = replace(a_recipe(), max_gap_steps=3)
    assert FittedRecipe.from_dict(other.to_dict()) == other


def test_a_recipe_on_a_calendar_has_a_version_that_the_release_before_refuses() -> None:
    monthly = replace(a_recipe(), grid=MonthGrid(1, day=31))

    values = monthly.to_dict()

    assert values["version"] == 2
    assert FittedRecipe.from_dict(values) == monthly
    assert a_recipe().to_dict()["version"] == 1
    assert "grid" not in a_recipe().to_dict()


@pytest.mark.parametrize("grid", [None, {"kind": "moon"}, {}])
def test_a_recipe_whose_calendar_makes_no_sense_is_refused(grid: object) -> None:
    values = {**a_recipe().to_dict(), "version": 2, "grid": grid}

    with pytest.raises(RejectedError) as refused:
        FittedRecipe.from_dict(values)

    assert (refused.value.code, refused.value.field) == ("bad_recipe", "grid")


def test_a_recipe_that_lacks_a_field_is_refused_naming_it() -> None:
    for field in set(a_recipe().to_dict()) - {"version"}:
        values = a_recipe().to_dict()
        del values[field]
        with pytest.raises(RejectedError) as refused:
            FittedRecipe.from_dict(values)
        assert refused.value.field == field


def test_only_so_many_orders_of_columns_are_remembered() -> None:
    recipe = fit_recipe(
        as_train(make_series(20, ("a",))), RecipeSpec(), ignored=tuple(str(number) for number in range(100))
    )

    for number in range(100):
        assert recipe.positions_in((str(number), "a")) is not None
        assert recipe.positions_in(("a",)) is None

    assert len(recipe._layouts) <= LAYOUTS_REMEMBERED + 1
