"""Bundles of direct models: a profile of the season plus the last value of the past, for tests of format 2."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flts.bundle.forecaster import longest_horizon
from flts.bundle.format import Bundle
from flts.bundle.tensors import signature_of
from flts.forecasting.direct import DirectInputs
from flts.forecasting.grid import FixedGrid, Grid, MonthGrid
from flts.forecasting.intervals import Intervals
from flts.forecasting.places import season_places
from flts.forecasting.recipe import FittedRecipe, RecipeSpec, fit_recipe, scaled_rows
from flts.forecasting.series import FloatArray, Series
from flts.forecasting.splits import as_train
from flts.training.onnx_file import GraphBuilder, to_bytes

CONFIG_HASH, TRAIN_HASH = "c" * 64, "e" * 64
BERLIN = FixedGrid(3_600, "Europe/Berlin")
MONTHS = MonthGrid(1)
LEVELS = (0.01, 0.05, 0.5, 0.95, 0.99)
PROBE_ROWS = 2
YEAR_WEIGHT = 0.1  # of the cosine of the year, scaled

Build = Callable[["Parts", GraphBuilder], str]
"""Adds nodes and returns the name of the forecast (b, H, m)."""


@dataclass(frozen=True)
class Parts:
    """The numbers of a direct model."""

    recipe: FittedRecipe
    season: int
    length: int
    horizon: int
    profile: NDArray[np.float32]
    """(S, m) scaled means at each place, less the mean."""

    def forecast(self, past: FloatArray, places: NDArray[np.int64], clock: FloatArray) -> FloatArray:
        """Return the numpy reference of `seasonal_answer`, (b, H, m)."""
        profile = self.profile.astype(np.float64)
        targets = self.recipe.varying_columns
        last = past[:, -1:, targets] - profile[places[:, self.length - 1 : self.length, 0]]
        year = YEAR_WEIGHT * np.cos(2 * np.pi * clock[:, self.length :, 2:])
        return last + profile[places[:, self.length :, 0]] + year


def hourly_series(rows: int = 24 * 40, *, columns: int = 2, first: int = 475_000, extra: bool = False) -> Series:
    """Return hours of a local day's profile plus noise; ``first`` is the position of the first row."""
    return made_series(BERLIN, rows, 24, first, columns + extra)


def monthly_series(rows: int = 120) -> Series:
    """Return months of a yearly profile plus noise."""
    return made_series(MONTHS, rows, 12, 400, 2)


def made_series(grid: Grid, rows: int, season: int, first: int, columns: int) -> Series:
    rng = np.random.default_rng(rows)
    times = grid.at(first + np.arange(rows))
    places = season_places(grid, times, (season,))[:, 0]
    values = 20 + 5 * np.sin(2 * np.pi * places[:, None] / season + np.arange(columns))
    values = (values + rng.normal(0, 0.3, values.shape)) * 10.0 ** np.arange(columns)
    return Series(times, tuple(f"c{number}" for number in range(columns)), values, grid)


def seasonal_answer(parts: Parts, graph: GraphBuilder) -> str:
    """Return the last value, moved along the profile from its place to the place of each step, plus a yearly wave."""
    profile = graph.constant(parts.profile)
    slice_from = lambda name, first, stop, axis: graph.node(  # noqa: E731 - one line in one function
        "Slice", [name, graph.integers(first), graph.integers(stop), graph.integers(axis)]
    )
    length, stop = parts.length, parts.length + parts.horizon
    targets = graph.node("Gather", ["past", graph.constant(parts.recipe.varying_columns)], axis=2)
    last = slice_from(targets, length - 1, length, 1)
    places = graph.node("Gather", ["places", graph.constant(np.array(0))], axis=2)
    then = graph.node("Gather", [profile, slice_from(places, length - 1, length, 1)], axis=0)
    ahead = graph.node("Gather", [profile, slice_from(places, length, stop, 1)], axis=0)
    turns = slice_from(slice_from("clock", length, stop, 1), 2, 3, 2)
    angle = graph.node("Mul", [turns, graph.constant(np.float32(2 * np.pi))])
    year = graph.node("Mul", [graph.node("Cos", [angle]), graph.constant(np.float32(YEAR_WEIGHT))])
    level = graph.node("Add", [graph.node("Sub", [last, then]), ahead])
    return graph.node("Add", [level, year])


def direct_parts(series: Series, *, season: int, length: int, horizon: int, spec: RecipeSpec | None = None) -> Parts:
    """Fit the profile to a series."""
    recipe = fit_recipe(as_train(series), spec or RecipeSpec())
    scaled = scaled_rows(recipe, series)[0][:, recipe.varying_columns]
    places = season_places(series.grid, series.times, (season,))[:, 0]
    profile = np.array([scaled[places == place].mean(axis=0) for place in range(season)]) - scaled.mean(axis=0)
    return Parts(recipe, season, length, horizon, profile.astype(np.float32))


def direct_bundle(
    series: Series,
    *,
    season: int = 24,
    length: int = 48,
    horizon: int = 24,
    spec: RecipeSpec | None = None,
    identifier: str = "direct",
    build: Build = seasonal_answer,
    arrays: Mapping[str, NDArray[Any] | None] | None = None,
    **changes: Any,
) -> tuple[Bundle, bytes]:
    """Return a bundle of format 2 whose model adds a profile to the last value.

    Parameters
    ----------
    build : callable
        Makes the model's nodes.
    arrays : mapping
        Arrays of the model file in place of the right ones; None leaves one out.
    changes
        Fields of the bundle in place of the right ones.
    """
    parts = direct_parts(series, season=season, length=length, horizon=horizon, spec=spec)
    recipe = parts.recipe
    targets = len(recipe.varying_targets)
    steps = tuple(dict.fromkeys((1, max(2, horizon // 2), horizon)))
    bundle = Bundle(
        model_type="LINEAR",
        input_kind="direct",
        identifier=identifier,
        config_hash=CONFIG_HASH,
        train_hash=TRAIN_HASH,
        recipe=recipe,
        input_seq_len=length,
        output_seq_len=horizon,
        rows_required=length,
        max_horizon_steps=longest_horizon(recipe, horizon),
        targets=recipe.targets,
        intervals=Intervals(0.9, steps, LEVELS, None),
        intervals_source="calibration_tail",
        model_sha256="0" * 64,
        model_size=1,
        probe=None,
        inputs=("past", "places", "clock"),
        seasons=(season,),
        fitted_until=int(series.times[-1]),
    )
    bundle = replace(bundle, **changes)
    source = DirectInputs(recipe, ("past", "places", "clock"), (season,), length, horizon)
    scaled = scaled_rows(recipe, series)[0]
    rows = np.stack([scaled[at : at + length] for at in range(PROBE_ROWS)])
    inputs = source.start(rows, series.times[length - 1 : length - 1 + PROBE_ROWS]).inputs()
    widths = recipe.scales_of_targets * 0.05 * np.sqrt(np.array(steps))[:, None]
    quantiles = np.array([-2.5, -1.6, 0.1, 1.7, 2.4])[:, None, None] * widths
    stored = {
        **{f"probe.{name}": given for name, given in inputs.items()},
        "probe.forecast": parts.forecast(inputs["past"], inputs["places"], inputs["clock"]),
        "intervals.values": quantiles,
        **(arrays or {}),
    }
    assert quantiles.shape[2] == targets
    graph = GraphBuilder()
    answer = build(parts, graph)
    for name, values in stored.items():
        if values is not None:
            graph.array(name, values)
    return with_bytes(bundle, to_bytes(graph.model(answer, signature_of(bundle))))


def with_bytes(bundle: Bundle, model: bytes) -> tuple[Bundle, bytes]:
    """Return a bundle with the hash and size of the model, and the model."""
    return replace(bundle, model_sha256=hashlib.sha256(model).hexdigest(), model_size=len(model)), model


def reference(
    series: Series, steps: int, *, season: int = 24, length: int = 48, horizon: int = 24, spec: RecipeSpec | None = None
) -> FloatArray:
    """Return the forecast after the last row in raw units with numpy alone, rolled in whole horizons."""
    parts = direct_parts(series, season=season, length=length, horizon=horizon, spec=spec)
    recipe = parts.recipe
    rows = scaled_rows(recipe, series)[0][-length:]
    last = series.times[-1:]
    answers: list[FloatArray] = []
    while True:
        times = np.concatenate([series.grid.before(last, length), series.grid.after(last, horizon)], axis=1)
        days = (series.grid.clock(times) // 86_400).astype("datetime64[D]")
        years = days.astype("datetime64[Y]")
        starts, ends = (part.astype("datetime64[s]").astype(np.int64) for part in (years, years + 1))
        turns = np.zeros((1, length + horizon, 3))
        turns[..., 2] = (series.grid.clock(times) - starts) / (ends - starts)
        answers.append(parts.forecast(rows[None], season_places(series.grid, times, (season,)), turns)[0])
        if len(answers) * horizon >= steps:
            return np.concatenate(answers)[:steps] * recipe.scales_of_targets + recipe.offsets_of_targets
        rows = np.concatenate([rows, answers[-1]])[-length:]
        last = times[:, -1]
