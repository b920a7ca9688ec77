"""The recipe prepares rows for a model, in the same way in training and in serving.

Statistics are fitted only on a `TrainSplit`. `transform` and `scaled_rows` compute a row from no later row. The tests
of this module check both properties, because a violation of either would leak the future into training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from flts.errors import RejectedError, SeriesTooShortError
from flts.forecasting.by_column import chunks_of, column_of, finite, missing_cells
from flts.forecasting.file_form import FileForm
from flts.forecasting.fitted import MAX_GAP_STEPS, RECIPE_VERSION, FittedRecipe
from flts.forecasting.grid import Grid
from flts.forecasting.roles import resolve_roles
from flts.forecasting.scaling import UNBOUNDED, ClipMethod, Scaler, clip_bounds, offset_and_scale
from flts.forecasting.series import BoolArray, FloatArray, IntArray, Series, segment_starts, segments_of
from flts.forecasting.splits import TrainSplit
from flts.forecasting.time_features import TIME_FEATURES, time_features

__all__ = [
    "RECIPE_VERSION",
    "Features",
    "FittedRecipe",
    "RecipeSpec",
    "all_targets",
    "fit_recipe",
    "imputed_rows",
    "kept_rows",
    "measured_only",
    "observed_targets",
    "raw_rows",
    "scale_known",
    "scale_targets",
    "scaled_rows",
    "targets_only",
    "time_features",
    "transform",
    "unscale_targets",
]

CHUNK_ROWS = 1 << 20
"""Rows whose time features are computed together, so that intermediate arrays stay small."""
LARGEST_SCALED = 1e30
"""Scaled units; models compute in float32, whose largest number is 3.4e38."""


@dataclass(frozen=True, slots=True)
class RecipeSpec:
    """The settings that determine the recipe's numbers; names, meanings and defaults as in ``RecipeSettings``."""

    handle_nans: bool = True
    nans_threshold: float = 0.33
    nans_drop_rows: bool = False
    clip_enable: bool = False
    clip_method: ClipMethod = "iqr"
    clip_factor: float = 1.5
    time_features_enable: bool = True
    lags_enable: bool = False
    lags_n: int = 3
    lags_step: int = 1
    scaler: Scaler = "MinMaxScaler"
    add_val: float = 0.0
    targets: tuple[str, ...] = ()
    past_columns: tuple[str, ...] = ()
    future_columns: tuple[str, ...] = ()
    max_gap_steps: int = MAX_GAP_STEPS

    @classmethod
    def of(cls, settings: object) -> RecipeSpec:
        """Copy the fields of the same names from a settings object."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})

    @property
    def lags(self) -> tuple[int, ...]:
        """Rows that each lag reaches back: 1, 2, ... ``lags_n`` times ``lags_step``; empty if lags are off."""
        return tuple(self.lags_step * number for number in range(1, self.lags_n + 1)) if self.lags_enable else ()


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Rows as a model reads them.

    Parameters
    ----------
    times : (n,)
        Epoch seconds.
    names : tuple of f names
        Equal to ``FittedRecipe.feature_names``; the first k are the recipe's columns.
    values : (n, f)
        Scaled. Only the lags of warm-up rows are NaN, if `transform` kept these rows.
    imputed : (n, k)
        True where the raw cell was missing.
    grid : Grid
    """

    times: IntArray
    names: tuple[str, ...]
    values: FloatArray
    imputed: BoolArray
    grid: Grid

    def __len__(self) -> int:
        return len(self.times)

    def segments(self) -> list[slice]:
        """Return the longest sequences of rows that are exactly one step apart."""
        return segments_of(self.times, self.grid)

    def first(self, rows: int) -> Features:
        """Return the first rows."""
        return Features(self.times[:rows], self.names, self.values[:rows], self.imputed[:rows], self.grid)


def fit_recipe(
    train: TrainSplit,
    spec: RecipeSpec,
    *,
    ignored: tuple[str, ...] = (),
    form: FileForm | None = None,
    holidays: Mapping[str, tuple[int, ...]] | None = None,
) -> FittedRecipe:
    """Fit a recipe's numbers on the training rows.

    Every statistic is computed from observed cells only. NaN and infinite cells count as missing.

    Parameters
    ----------
    train : TrainSplit
    spec : RecipeSpec
    ignored : tuple of names
        Columns of the file that IGNORE_COLUMNS left out; forecast requests may contain them.
    form : FileForm, optional
        How the files are written, unless every request may be written so.
    holidays : mapping, optional
        Days of the features of holidays (`flts.ingest.holiday_dates.holiday_days`).

    Raises
    ------
    RejectedError
        ``unknown_target`` or ``target_dropped`` (field ``TARGETS``), ``bad_setting`` (field ``PAST_COLUMNS`` or
        ``FUTURE_COLUMNS``), ``no_columns`` (field ``NANS_THRESHOLD``), ``reserved_name`` or ``values_too_large``
        (field: the column).
    SeriesTooShortError
        If no training row is left.
    """
    series = train.series
    dropped = dict.fromkeys(ignored, "named in IGNORE_COLUMNS") | _drop_sparse(series, spec)
    columns = tuple(name for name in series.columns if name not in dropped)
    roles = resolve_roles(spec, columns, dropped)
    positions = [series.columns.index(name) for name in columns]
    drops_rows = spec.nans_drop_rows or not spec.handle_nans
    complete = _complete(series.values, positions) if drops_rows else None
    if complete is not None and not complete.any():
        msg = "no training row is complete, and rows with missing cells are dropped (NANS_DROP_ROWS, HANDLE_NANS)"
        raise SeriesTooShortError(msg, field="NANS_DROP_ROWS")
    fits = [
        _fit_column(name, column_of(series.values, at) if complete is None else series.values[complete, at], spec)
        for name, at in zip(columns, positions, strict=True)
    ]
    recipe = FittedRecipe(
        grid=series.grid,
        columns=columns,
        dropped=dropped,
        fill=tuple(fit.fill for fit in fits),
        clip_lower=tuple(fit.lower for fit in fits) if spec.clip_enable else None,
        clip_upper=tuple(fit.upper for fit in fits) if spec.clip_enable else None,
        offset=tuple(fit.offset for fit in fits),
        scale=tuple(fit.scale for fit in fits),
        add=float(spec.add_val),
        time_features=spec.time_features_enable,
        lags=spec.lags,
        targets=roles.targets,
        future_columns=roles.future,
        holidays=holidays or {},
        constants={name: fit.fill for name, fit in zip(columns, fits, strict=True) if fit.constant},
        nans_drop_rows=spec.nans_drop_rows,
        handle_nans=spec.handle_nans,
        max_gap_steps=spec.max_gap_steps,
        form=form,
    )
    made = recipe.feature_names[len(columns) :]
    for name in columns:
        if name in made or (recipe.time_features and name in TIME_FEATURES):
            msg = f"column {name} has the name of a feature that the recipe makes; IGNORE_COLUMNS={name} leaves it out"
            raise RejectedError(msg, code="reserved_name", field=name)
    return recipe


def transform(recipe: FittedRecipe, series: Series, *, drop_warmup: bool = True) -> Features:
    """Turn raw rows into features; a row's features depend on no later row.

    If ``recipe.drops_rows``, rows with missing cells are left out, and each leaves a gap in the series.

    Parameters
    ----------
    recipe : FittedRecipe
    series : Series
        Contains the recipe's columns in any order; columns that the recipe dropped are ignored.
    drop_warmup : bool
        Leave out each segment's first ``warmup_rows`` rows, whose lags are unknown; if false, these lags are NaN.

    Raises
    ------
    RejectedError
        ``missing_column`` or ``unknown_column``; ``field`` is the column.
    """
    if recipe.drops_rows:
        kept = kept_rows(recipe, series)
        series = Series(series.times[kept], series.columns, series.values[kept], series.grid)
    scaled, imputed = scaled_rows(recipe, series)
    n, k = scaled.shape
    values = np.empty((n, len(recipe.feature_names)))
    values[:, :k] = scaled
    made = k
    if recipe.time_features:
        made = k + len(TIME_FEATURES)
        for at in range(0, n, CHUNK_ROWS):
            part = slice(at, at + CHUNK_ROWS)
            values[part, k:made] = time_features(series.grid.clock(series.times[part]))
    times = series.times
    if recipe.lags:
        starts = segment_starts(times, series.grid)
        values[:, made:] = _lagged(scaled[:, recipe.varying_columns], recipe.lags, starts)
        if drop_warmup:
            warm = np.arange(n) - starts >= recipe.warmup_rows
            times, values, imputed = times[warm], values[warm], imputed[warm]
    return Features(times, recipe.feature_names, values, imputed, series.grid)


def scaled_rows(recipe: FittedRecipe, series: Series) -> tuple[FloatArray, BoolArray]:
    """Return the measured columns imputed, clipped and scaled, and which cells were missing; both (n, k).

    Every row is returned; `kept_rows` returns which rows to leave out. A column that was constant in training gets its
    constant in every row: a model cannot learn the effect of such a column, so its weights for the column are random.
    """
    raw, missing = imputed_rows(recipe, series)
    bounds = recipe.bounds
    if bounds is not None:
        raw = np.minimum(np.maximum(raw, bounds[0]), bounds[1])
    scaled = raw - recipe.offsets
    scaled /= recipe.scales
    if recipe.add:
        scaled += recipe.add
    if recipe.constants:
        at = recipe.constant_columns
        scaled[:, at] = recipe.scaled_constants[at]
    return scaled, missing


def imputed_rows(recipe: FittedRecipe, series: Series) -> tuple[FloatArray, BoolArray]:
    """Return the measured columns in raw units with missing cells filled, and which cells were missing; both (n, k).

    A missing cell gets the last earlier value of its column in the same segment, or else the column's training median.
    The result may share the series' memory.
    """
    positions = recipe.positions_in(series.columns)
    raw = series.values if positions is None else series.values.take(positions, axis=1)
    missing = ~np.isfinite(raw)
    if missing.any():
        raw = _fill(raw, missing, segment_starts(series.times, series.grid), recipe.fills)
    return raw, missing


def kept_rows(recipe: FittedRecipe, series: Series) -> BoolArray:
    """Return which rows the recipe uses, (n,): all rows, or only complete rows if ``recipe.drops_rows``."""
    if not recipe.drops_rows:
        return np.ones(len(series), dtype=bool)
    positions = recipe.positions_in(series.columns)
    return _complete(series.values, range(len(series.columns)) if positions is None else positions)


def raw_rows(recipe: FittedRecipe, features: Features) -> Series:
    """Return the measured columns in raw units, missing cells filled: the inverse of `transform` without clipping."""
    values = (features.values[:, : len(recipe.columns)] - recipe.add) * recipe.scales + recipe.offsets
    values[:, recipe.constant_columns] = list(recipe.constants.values())
    return Series(features.times, recipe.columns, values, features.grid)


def observed_targets(recipe: FittedRecipe, features: Features) -> FloatArray:
    """Return the varying targets in raw units, (n, m), NaN where the cell was missing."""
    at = recipe.varying_columns
    return np.where(features.imputed[:, at], np.nan, unscale_targets(recipe, features.values[:, at]))


def targets_only(recipe: FittedRecipe, features: Features, rows: int | None = None) -> tuple[FittedRecipe, Features]:
    """Return the recipe of a model whose only inputs are the targets, and the rows transformed by it.

    The forecasts of such a model can always be fed back. The recipe clips nothing; otherwise see `measured_only`.
    """
    own, seen = _rescaled(recipe, features, tuple(name for name in recipe.columns if name in recipe.targets), rows)
    return replace(own, clip_lower=None, clip_upper=None, holidays={}), seen


def measured_only(recipe: FittedRecipe, features: Features, rows: int | None = None) -> tuple[FittedRecipe, Features]:
    """Return the recipe without time features and lags, and the rows transformed by it.

    The recipe scales the training rows to 0..1 for every setting of the scaler: a window is float32, which keeps few
    digits of a value far from 0. ``features`` are of the training rows, made with ``recipe``; later rows may follow the
    ``rows`` training rows.
    """
    return _rescaled(recipe, features, recipe.columns, rows)


def forecast_or_known(
    recipe: FittedRecipe, features: Features, rows: int | None = None
) -> tuple[FittedRecipe, Features]:
    """Return the recipe of a model that reads the targets and what is known ahead, and the rows transformed by it.

    Otherwise see `measured_only`, which it equals if there are no other columns.
    """
    known = {*recipe.targets, *recipe.known_ahead}
    return _rescaled(recipe, features, tuple(name for name in recipe.columns if name in known), rows)


def scale_targets(recipe: FittedRecipe, raw: FloatArray) -> FloatArray:
    """Scale varying targets, (..., m) in raw units, without clipping."""
    return (raw - recipe.offsets_of_targets) / recipe.scales_of_targets + recipe.add


def scale_known(recipe: FittedRecipe, raw: FloatArray) -> FloatArray:
    """Scale values of the columns that are known ahead, (..., q) in raw units, as `scaled_rows` does."""
    at, bounds = recipe.known_columns, recipe.bounds
    if bounds is not None:
        raw = np.clip(raw, bounds[0][at], bounds[1][at])
    return (raw - recipe.offsets[at]) / recipe.scales[at] + recipe.add


def unscale_targets(recipe: FittedRecipe, scaled: FloatArray) -> FloatArray:
    """Return the varying targets in raw units, (..., m): the inverse of `scale_targets`."""
    return (scaled - recipe.add) * recipe.scales_of_targets + recipe.offsets_of_targets


def all_targets(recipe: FittedRecipe, varying: FloatArray) -> FloatArray:
    """Return every target in raw units in the order of ``targets``, (..., M), from the varying ones, (..., m)."""
    if len(recipe.varying_targets) == len(recipe.targets):
        return varying
    complete = np.empty((*varying.shape[:-1], len(recipe.targets)))
    which = iter(range(varying.shape[-1]))
    for position, name in enumerate(recipe.targets):
        constant = recipe.constants.get(name)
        complete[..., position] = varying[..., next(which)] if constant is None else constant
    return complete


def _rescaled(
    recipe: FittedRecipe, features: Features, kept: tuple[str, ...], rows: int | None
) -> tuple[FittedRecipe, Features]:
    """Return the recipe of some columns alone, which scales the training rows to 0..1, and all rows transformed."""
    at = [recipe.columns.index(name) for name in kept]
    raw = raw_rows(recipe, features).values[:, at]
    lowest = raw[:rows].min(axis=0)
    span = raw[:rows].max(axis=0) - lowest
    scale = np.where(span > 0, span, 1.0)
    others = {name: "no input of this model" for name in recipe.columns if name not in kept}
    own = replace(
        recipe,
        columns=kept,
        dropped=recipe.dropped | others,
        fill=tuple(recipe.fills[at].tolist()),
        clip_lower=recipe.clip_lower and tuple(recipe.clip_lower[each] for each in at),
        clip_upper=recipe.clip_upper and tuple(recipe.clip_upper[each] for each in at),
        offset=tuple(lowest.tolist()),
        scale=tuple(scale.tolist()),
        add=0.0,
        time_features=False,
        lags=(),
        constants={name: value for name, value in recipe.constants.items() if name in kept},
        future_columns=tuple(name for name in recipe.future_columns if name in kept),
    )
    raw -= lowest
    raw /= scale
    return own, Features(features.times, kept, raw, features.imputed[:, at], features.grid)


@dataclass(frozen=True, slots=True)
class _ColumnFit:
    fill: float
    lower: float
    upper: float
    offset: float
    scale: float
    constant: bool


def _fit_column(name: str, column: FloatArray, spec: RecipeSpec) -> _ColumnFit:
    seen = finite(column)
    constant = bool(seen.min() == seen.max())
    fill = float(seen[0] if constant else np.median(seen))
    lower, upper = -UNBOUNDED, UNBOUNDED
    with np.errstate(over="ignore", invalid="ignore"):
        if spec.clip_enable and not constant:
            lower, upper = clip_bounds(seen, spec.clip_method, spec.clip_factor)
            seen = np.clip(seen, lower, upper)
        offset, scale = offset_and_scale(seen, spec.scaler)
        reach = max(abs(seen.min() - offset), abs(seen.max() - offset)) / scale if scale > 0 else np.inf
    if not (np.isfinite([fill, lower, upper, offset, scale]).all() and reach + abs(spec.add_val) < LARGEST_SCALED):
        msg = (
            f"the values of column {name} are too large, or too small apart, to be scaled: {spec.scaler} fails on them"
        )
        raise RejectedError(msg, code="values_too_large", field=name)
    return _ColumnFit(fill, lower, upper, offset, scale, constant)


def _drop_sparse(series: Series, spec: RecipeSpec) -> dict[str, str]:
    columns = series.columns
    if len(series) == 0:
        msg = "there are no training rows"
        raise SeriesTooShortError(msg)
    shares = [missing_cells(series.values, at) / len(series) for at in range(len(columns))]
    dropped = {
        name: f"{share:.1%} of its training cells are missing, NANS_THRESHOLD allows {spec.nans_threshold:.1%}"
        for name, share in zip(columns, shares, strict=True)
        if share > spec.nans_threshold or share == 1
    }
    if len(dropped) == len(columns):
        msg = "no column is left: " + "; ".join(f"{name}: {reason}" for name, reason in dropped.items())
        raise RejectedError(msg, code="no_columns", field="NANS_THRESHOLD")
    return dropped


def _complete(values: FloatArray, positions: Sequence[int] | IntArray) -> BoolArray:
    """Return which rows, (n,), have a finite cell in each of the columns at these positions."""
    complete = np.empty(len(values), dtype=bool)
    for rows in chunks_of(values):
        complete[rows] = np.isfinite(values[rows].take(positions, axis=1)).all(axis=1)
    return complete


def _fill(raw: FloatArray, missing: BoolArray, starts: IntArray, fills: FloatArray) -> FloatArray:
    rows = np.arange(len(raw))[:, None]
    last = np.maximum.accumulate(np.where(missing, -1, rows), axis=0)
    carried = np.take_along_axis(raw, np.maximum(last, 0), axis=0)
    return np.where(last >= starts[:, None], carried, fills)


def _lagged(targets: FloatArray, lags: tuple[int, ...], starts: IntArray) -> FloatArray:
    """Return lagged values, (n, m * lags), target by target; NaN where a lag reaches before the segment."""
    n, m = targets.shape
    lagged = np.full((n, m, len(lags)), np.nan)
    for position, lag in enumerate(lags):
        known = np.flatnonzero(np.arange(n) - starts >= lag)
        lagged[known, :, position] = targets[known - lag]
    return lagged.reshape(n, m * len(lags))
