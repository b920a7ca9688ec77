from __future__ import annotations

import pytest

from flts.errors import RejectedError
from flts.forecasting.recipe import RecipeSpec
from flts.forecasting.roles import resolve_roles

COLUMNS = ("load", "wind", "price")


@pytest.mark.parametrize(
    ("named", "targets", "future"),
    [
        ({}, COLUMNS, ()),
        ({"targets": ("price", "load", "price")}, ("price", "load"), ()),
        ({"past_columns": ("wind",)}, ("load", "price"), ()),
        ({"future_columns": ("price",)}, ("load", "wind"), ("price",)),
        ({"past_columns": ("wind",), "future_columns": ("price",)}, ("load",), ("price",)),
        ({"targets": ("load",), "future_columns": ("price",)}, ("load",), ("price",)),
        ({"future_columns": ("gone", "price")}, ("load", "wind"), ("price",)),
    ],
)
def test_each_column_has_one_role(
    named: dict[str, tuple[str, ...]], targets: tuple[str, ...], future: tuple[str, ...]
) -> None:
    roles = resolve_roles(RecipeSpec(**named), COLUMNS, {"gone": "it has no values"})

    assert (roles.targets, roles.future) == (targets, future)


@pytest.mark.parametrize(
    ("named", "code", "field", "message"),
    [
        ({"targets": ("typo",)}, "unknown_target", "TARGETS", "typo is not among"),
        ({"targets": ("gone",)}, "target_dropped", "TARGETS", "it has no values"),
        ({"past_columns": ("typo",)}, "bad_setting", "PAST_COLUMNS", "typo is not among the columns: load"),
        ({"future_columns": ("typo",)}, "bad_setting", "FUTURE_COLUMNS", "typo is not among"),
        ({"targets": ("load",), "past_columns": ("load",)}, "bad_setting", "PAST_COLUMNS", "load is in TARGETS too"),
        (
            {"past_columns": ("wind",), "future_columns": ("wind",)},
            "bad_setting",
            "FUTURE_COLUMNS",
            "wind is in PAST_COLUMNS too",
        ),
        ({"future_columns": COLUMNS}, "bad_setting", "FUTURE_COLUMNS", "no column is left to forecast"),
        ({"past_columns": COLUMNS}, "bad_setting", "PAST_COLUMNS", "no column is left to forecast"),
    ],
)
def test_a_refusal_names_the_setting(named: dict[str, tuple[str, ...]], code: str, field: str, message: str) -> None:
    with pytest.raises(RejectedError, match=message) as refused:
        resolve_roles(RecipeSpec(**named), COLUMNS, {"gone": "it has no values"})

    assert (refused.value.code, refused.value.field) == (code, field)
