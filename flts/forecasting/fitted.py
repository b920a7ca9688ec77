"""A fitted recipe: the numbers that turn rows into model inputs, and model outputs into raw units."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np

from flts.errors import RejectedError
from flts.forecasting.file_form import FileForm
from flts.forecasting.grid import Grid, grid_from_dict
from flts.forecasting.series import FloatArray, IntArray
from flts.forecasting.time_features import TIME_FEATURES

RECIPE_VERSION = 1
"""Version; a change of the recipe's numbers or of its Parquet layout raises it. Part of config_hash."""
GRID_VERSION = 2
"""Version in the JSON of a recipe whose grid is not just a fixed step. A release that knows no other grid refuses it
and keeps the champion that it has."""
MAX_GAP_STEPS = 12
"""``max_gap_steps`` of a recipe that does not state it, because an earlier release wrote it."""
LAYOUTS_REMEMBERED = 64
"""Column orders whose positions are cached; requests use few different orders."""


@dataclass(frozen=True)
class FittedRecipe:
    """The numbers that `fit_recipe` computed from the training rows; stored in ``meta.json`` and in every bundle.

    A value x of a kept column becomes ``(clip(fill(x)) - offset) / scale + add``.
    """

    grid: Grid
    columns: tuple[str, ...]
    """Kept raw columns, in the order of the features."""
    dropped: dict[str, str]
    """Raw columns that are accepted and ignored, with the reason."""
    fill: tuple[float, ...]
    """Training median of each column, for missing cells without an earlier value in their segment."""
    clip_lower: tuple[float, ...] | None
    clip_upper: tuple[float, ...] | None
    offset: tuple[float, ...]
    scale: tuple[float, ...]
    add: float
    time_features: bool
    lags: tuple[int, ...]
    """Rows that each lag reaches back."""
    targets: tuple[str, ...]
    constants: dict[str, float]
    """Columns with one value in all training rows, and that value, which is also the forecast of such a target."""
    nans_drop_rows: bool
    handle_nans: bool
    max_gap_steps: int = MAX_GAP_STEPS
    """Most missing rows of a gap that is filled in the rows of a request, as in an upload."""
    form: FileForm | None = None
    """How the files write times and numbers, or None if every request may do so."""
    future_columns: tuple[str, ...] = ()
    """Columns among ``columns`` whose values are known ahead."""
    holidays: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Days since 1970 on which a feature of the holidays is 1, by its name (`flts.forecasting.holidays`)."""

    def __hash__(self) -> int:
        return hash((self.grid, self.columns, self.targets, self.offset, self.scale))

    @property
    def step_seconds(self) -> int:
        """Seconds between two rows, the mean if they vary."""
        return self.grid.step_seconds

    @cached_property
    def varying_targets(self) -> tuple[str, ...]:
        """Targets that are not constant, in the order of a model's outputs."""
        return tuple(name for name in self.targets if name not in self.constants)

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """Names of a model's input columns: measured columns, time features, lags (target by target)."""
        lags = tuple(f"{target}_lag_{lag}" for target in self.varying_targets for lag in self.lags)
        return (*self.columns, *(TIME_FEATURES if self.time_features else ()), *lags)

    @property
    def warmup_rows(self) -> int:
        """Number of earlier rows that the lags of a row need."""
        return max(self.lags, default=0)

    @property
    def drops_rows(self) -> bool:
        """Whether rows with missing cells are left out instead of filled."""
        return self.nans_drop_rows or not self.handle_nans

    @cached_property
    def forecasts_its_inputs(self) -> bool:
        """Whether every measured input is a target or constant, so that forecasts can be fed back."""
        return set(self.columns) <= {*self.targets, *self.constants}

    @cached_property
    def known_ahead(self) -> tuple[str, ...]:
        """Future columns that are not constant, in their order: the values that a forecast of its steps needs."""
        return tuple(name for name in self.future_columns if name not in self.constants)

    @cached_property
    def known_columns(self) -> IntArray:
        """Position of each column of ``known_ahead`` within ``columns``."""
        return self._positions_of(self.known_ahead)

    @cached_property
    def varying_columns(self) -> IntArray:
        """Position of each varying target within ``columns``."""
        return self._positions_of(self.varying_targets)

    @cached_property
    def constant_columns(self) -> IntArray:
        """Position of each constant column within ``columns``."""
        return self._positions_of(tuple(self.constants))

    @cached_property
    def scaled_constants(self) -> FloatArray:
        """A scaled row, (k,), with the constants in their columns and 0 in all other columns."""
        row = np.zeros(len(self.columns))
        at = self.constant_columns
        row[at] = (np.array(list(self.constants.values())) - self.offsets[at]) / self.scales[at] + self.add
        return row

    @cached_property
    def offsets(self) -> FloatArray:
        """``offset`` as an array, (k,)."""
        return np.array(self.offset)

    @cached_property
    def scales(self) -> FloatArray:
        """``scale`` as an array, (k,)."""
        return np.array(self.scale)

    @cached_property
    def fills(self) -> FloatArray:
        """``fill`` as an array, (k,)."""
        return np.array(self.fill)

    @cached_property
    def bounds(self) -> tuple[FloatArray, FloatArray] | None:
        """Bounds of clipping as arrays, each (k,)."""
        if self.clip_lower is None or self.clip_upper is None:
            return None
        return np.array(self.clip_lower), np.array(self.clip_upper)

    @cached_property
    def offsets_of_targets(self) -> FloatArray:
        """``offset`` of the varying targets, (m,)."""
        return self.offsets[self.varying_columns]

    @cached_property
    def scales_of_targets(self) -> FloatArray:
        """``scale`` of the varying targets, (m,)."""
        return self.scales[self.varying_columns]

    def positions_in(self, columns: tuple[str, ...]) -> IntArray | None:
        """Return the positions of the recipe's columns among ``columns``, or None if both are equal.

        Raises
        ------
        RejectedError
            ``missing_column`` or ``unknown_column``; ``field`` is the column.
        """
        try:
            return self._layouts[columns]
        except KeyError:
            positions = self._find(columns)
        if len(self._layouts) >= LAYOUTS_REMEMBERED:
            self._layouts.clear()
        self._layouts[columns] = positions
        return positions

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, from which `from_dict` restores every number exactly."""
        values: dict[str, Any] = {"version": RECIPE_VERSION, "step_seconds": self.step_seconds}
        if not self.grid.is_plain:
            values |= {"version": GRID_VERSION, "grid": self.grid.to_dict()}
        # A field with its default is left out, so that the JSON is that of the release that did not have the field.
        own = {name: getattr(self, name) for name in (each.name for each in fields(self)) if name != "grid"}
        own["form"] = self.form and self.form.to_dict()
        own["holidays"] = {name: list(days) for name, days in self.holidays.items()}
        return values | {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in own.items()
            if name not in _DEFAULTS or value != _DEFAULTS[name]
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FittedRecipe:
        """Read a recipe that `to_dict` wrote, and check every field.

        Raises
        ------
        RejectedError
            ``recipe_version`` for another version; ``bad_recipe`` for missing fields, wrong types or lengths, numbers
            that are not finite, unknown targets.
        """
        version = values.get("version") if isinstance(values, Mapping) else None
        if version not in (RECIPE_VERSION, GRID_VERSION):
            msg = f"recipe version {version!r:.50} is unknown; this release reads {RECIPE_VERSION} and {GRID_VERSION}"
            raise RejectedError(msg, code="recipe_version", field="version")
        if version == RECIPE_VERSION:
            fixed = {"kind": "fixed", "step_seconds": values.get("step_seconds")}
            read: dict[str, Any] = {"grid": grid_from_dict(fixed, field="step_seconds")}
        else:
            read = {"grid": grid_from_dict(values.get("grid", {}))}
        for name, reader in _READERS.items():
            try:
                read[name] = reader(values[name] if name in values else _DEFAULTS[name])
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                msg = f"recipe field {name} is missing or not what it should be"
                raise RejectedError(msg, code="bad_recipe", field=name) from error
        recipe = cls(**read)
        recipe._check()
        return recipe

    def _check(self) -> None:
        k = len(self.columns)
        for name in ("fill", "offset", "scale", "clip_lower", "clip_upper"):
            numbers = getattr(self, name)
            if numbers is not None and len(numbers) != k:
                msg = f"recipe field {name} has {len(numbers)} numbers for {k} columns"
                raise RejectedError(msg, code="bad_recipe", field=name)
        problems = {
            "columns": k == 0 or len(set(self.columns)) < k,
            "scale": any(number <= 0 for number in self.scale),
            "lags": any(lag < 1 for lag in self.lags),
            "max_gap_steps": self.max_gap_steps < 0,
            "targets": not self.targets or not set(self.targets) <= set(self.columns),
            "constants": not set(self.constants) <= set(self.columns),
            "future_columns": not set(self.future_columns) <= set(self.columns) - set(self.targets),
            "clip_lower": (self.clip_lower is None) != (self.clip_upper is None),
        }
        for name, wrong in problems.items():
            if wrong:
                msg = f"recipe field {name} makes no sense: {getattr(self, name)!r:.200}"
                raise RejectedError(msg, code="bad_recipe", field=name)

    def _positions_of(self, names: tuple[str, ...]) -> IntArray:
        return np.array([self.columns.index(name) for name in names], dtype=np.int64)

    @cached_property
    def _layouts(self) -> dict[tuple[str, ...], IntArray | None]:
        return {}

    def _find(self, columns: tuple[str, ...]) -> IntArray | None:
        if columns == self.columns:
            return None
        where = {name: position for position, name in enumerate(columns)}
        for name in self.columns:
            if name not in where:
                msg = f"column {name} is missing; needed are {', '.join(self.columns)}"
                raise RejectedError(msg, code="missing_column", field=name)
        for name in columns:
            if name not in self.columns and name not in self.dropped:
                msg = f"column {name} is unknown; known are {', '.join((*self.columns, *self.dropped))}"
                raise RejectedError(msg, code="unknown_column", field=name)
        return np.array([where[name] for name in self.columns], dtype=np.int64)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _numbers(values: list[object]) -> tuple[float, ...]:
    return tuple(_number(value) for value in values)


def _numbers_or_none(values: list[object] | None) -> tuple[float, ...] | None:
    return None if values is None else _numbers(values)


def _texts(values: list[object]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise TypeError
    return tuple(_text(value) for value in values)


_DEFAULTS: dict[str, Any] = {"max_gap_steps": MAX_GAP_STEPS, "form": None, "future_columns": (), "holidays": {}}
_READERS: dict[str, Callable[[Any], object]] = {
    "columns": _texts,
    "dropped": lambda values: {_text(name): _text(reason) for name, reason in values.items()},
    "fill": _numbers,
    "clip_lower": _numbers_or_none,
    "clip_upper": _numbers_or_none,
    "offset": _numbers,
    "scale": _numbers,
    "add": _number,
    "time_features": _flag,
    "lags": lambda values: tuple(_whole(value) for value in values),
    "targets": _texts,
    "constants": lambda values: {_text(name): _number(number) for name, number in values.items()},
    "nans_drop_rows": _flag,
    "handle_nans": _flag,
    "max_gap_steps": _whole,
    "form": lambda values: None if values is None else FileForm.from_dict(values),
    "future_columns": _texts,
    "holidays": lambda values: {_text(name): tuple(map(_whole, days)) for name, days in values.items()},
}
