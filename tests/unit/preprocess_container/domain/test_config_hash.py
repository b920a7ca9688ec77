from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flts.forecasting.grid import FixedGrid, Grid, MonthGrid
from flts.recipe_settings import RecipeSettings
from preprocess_container.domain import config_hash as module
from preprocess_container.domain.config_hash import config_hash

OTHER: dict[str, Any] = {
    "handle_nans": False,
    "nans_threshold": 0.5,
    "nans_drop_rows": True,
    "clip_enable": True,
    "clip_method": "sigma",
    "clip_factor": 3.0,
    "time_features_enable": False,
    "lags_enable": True,
    "lags_n": 4,
    "lags_step": 2,
    "scaler": "StandardScaler",
    "add_val": 0.5,
    "targets": ("a",),
    "train_test_split": 0.7,
    "sample_train_rows": 50,
    "sample_test_rows": 30,
    "sample_strategy": "random",
    "sample_seed": 45,
    "extra_hash_salt": "again",
    "max_gap_steps": 3,
    "step": "1 h",
    "ignore_columns": ("note",),
    "time_format": "DD/MM/YYYY",
    "time_zone": "Europe/Berlin",
    "time_column": "when",
    "series_column": "id",
    "decimal": ",",
    "thousands": ".",
    "missing": ("x",),
    "encoding": "windows-1252",
    "skip_rows": 2,
    "duplicates": "last",
    "past_columns": ("wind",),
    "future_columns": ("price",),
    "holidays": ("DE",),
}
TRAIN, TEST = "1" * 64, "2" * 64


def hash_of(train: str = TRAIN, test: str | None = TEST, **settings: Any) -> str:
    return config_hash(RecipeSettings(**settings), train_sha256=train, test_sha256=test)


def test_every_setting_of_the_recipe_is_tried() -> None:
    assert set(OTHER) == set(RecipeSettings.model_fields)


@pytest.mark.parametrize("name", sorted(OTHER))
def test_another_value_of_any_setting_is_another_hash(name: str) -> None:
    assert hash_of(**{name: OTHER[name]}) != hash_of()


@given(st.sets(st.sampled_from(sorted(OTHER))), st.sets(st.sampled_from(sorted(OTHER))))
def test_hashes_are_equal_exactly_if_all_settings_are(one: set[str], other: set[str]) -> None:
    first = hash_of(**{name: OTHER[name] for name in sorted(one)})
    second = hash_of(**{name: OTHER[name] for name in sorted(other, reverse=True)})

    assert (first == second) == (one == other)


def test_a_calendar_is_another_hash_and_a_fixed_step_is_not() -> None:
    settings = RecipeSettings()

    def with_grid(grid: Grid) -> str:
        return config_hash(settings, train_sha256=TRAIN, test_sha256=TEST, grid=grid)

    assert with_grid(FixedGrid(60)) == hash_of()
    assert len({with_grid(MonthGrid(1)), with_grid(MonthGrid(3)), hash_of()}) == 3


@pytest.mark.parametrize(
    ("settings", "test", "expected"),
    [
        ({}, TEST, "7bbe5dfc859c5d5e52ad102580505825f0b12c33d935609d297222b5e5c6f786"),
        (
            {"targets": ("a",), "clip_enable": True, "ignore_columns": ("note",)},
            None,
            "c93b296ea1b8d3ca4615857f89bfaf55f11b736456b16c019e795c595225cad3",
        ),
    ],
)
def test_settings_that_were_added_later_leave_the_hash_of_release_0_1_0_unless_they_are_set(
    settings: dict[str, Any], test: str | None, expected: str
) -> None:
    assert hash_of(test=test, **settings) == expected
    assert hash_of(test=test, **settings, time_format="", time_zone="") == expected
    assert hash_of(test=test, **settings, time_zone="Europe/Berlin") != expected


def test_only_settings_that_exist_were_added_later() -> None:
    assert set(RecipeSettings.model_fields) >= RecipeSettings.ADDED_LATER


def test_how_a_value_was_written_does_not_matter() -> None:
    written = {"add_val": "0", "targets": "a, b", "handle_nans": "1", "clip_factor": 1.5, "sample_train_rows": "50"}

    assert hash_of(**written) == hash_of(targets=("a", "b"), sample_train_rows=50)


def test_the_raw_files_and_the_recipe_version_are_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = {hash_of(), hash_of(train=TEST), hash_of(test=None), hash_of(test=TRAIN), hash_of(TEST, TRAIN)}
    monkeypatch.setattr(module, "RECIPE_VERSION", 2)

    assert len({*hashes, hash_of()}) == 6
