"""The forecasts of FLTS: an upload is decided in this process, and every bundle answers ``/predict`` at the origins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval_container.domain.scoring import origins_for
from eval_container.judging import BEST
from flts.bundle.forecaster import Forecaster
from flts.bundle.format import Bundle
from flts.bundle.load import fetch_bundle
from flts.bundle.model import BundleModel
from flts.contracts.claim_check import ClaimCheck
from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.recipe import Features, raw_rows
from flts.forecasting.season_tests import table_seasons
from flts.forecasting.series import BoolArray, FloatArray, IntArray, Series
from flts.trainers import BASELINES, Trainer, trained_by
from tests.bench_forecast.measures import Forecasts, Truth
from tests.bench_forecast.sets import DataSet
from tests.in_process import Decided, decided_upload
from tests.serving import answers_of, body_of

ORIGINS = 120
SENT_HORIZONS = 20
"""Rows before a model's window that a request holds, in horizons: from their errors a replica may set the intervals."""
MOST_SENT_ROWS = 10_000


@dataclass(frozen=True)
class Task:
    """What every contender forecasts."""

    series: Series
    """All rows, training rows first; the judged targets only, NaN where a cell was missing."""
    origins: IntArray
    train_rows: int
    horizon: int
    seasons: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """A decided run and the forecasts of its models."""

    task: Task
    truth: Truth
    forecasts: dict[str, Forecasts]
    """By model type, of the judged bundles."""
    served: str
    """Model type that the run promoted."""
    cpu_seconds: float
    """Of all trainers and of the decision."""


def run(folder: Path, data: DataSet, trainers: Sequence[Trainer], seed: int) -> Outcome:
    """Decide a data set, and forecast from the origins with every bundle of the run.

    Raises
    ------
    RejectedError
        If the product refuses the data set.
    ValueError
        If the run promoted no model.
    """
    horizon = {} if data.horizon is None else {"HORIZON": str(data.horizon)}
    decided = decided_upload(folder, data.train, data.test, trainers=trainers, **horizon, SEED=seed)
    judgement = decided.judgement
    served, steps = judgement.choice.winner, judgement.horizon_steps
    if served is None or steps is None:
        msg = f"{data.name}: no model was promoted: {judgement.choice.reasons}"
        raise ValueError(msg)
    bundles = dict(_bundles(decided))
    train = decided.prepared.train
    recipe = FittedRecipe.from_dict(decided.prepared.meta()["recipe"])
    series, train_rows = _all_rows(decided, recipe, train)
    targets = data.targets or recipe.varying_targets
    origins = _origins(bundles, series, train_rows, max(steps, data.reach))
    at = [series.columns.index(name) for name in targets]
    scaled = [recipe.varying_targets.index(name) for name in targets]
    seasons = data.seasons or table_seasons(series.values[:train_rows, at], train.times, series.grid)
    known = series.values[:train_rows, at]
    truth = Truth(
        actual=series.values[origins[:, None] + np.arange(steps)][..., at],
        training_rows=known,
        segments=train.segments(),
        season=min(seasons, default=1),
        scale=recipe.scales_of_targets[scaled],
        weights=decided.settings.weights(),
        baselines=tuple(name for name in BEST if name in bundles),
    )
    task = Task(series.select(targets), origins, train_rows, steps, tuple(seasons))
    forecasts = {
        name: _answers(made, task, series, home=folder / name, cpu_seconds=_seconds(decided, name))
        for name, made in bundles.items()
    }
    return Outcome(task, truth, forecasts, served, sum(decided.cpu_seconds.values()))


def _bundles(decided: Decided) -> Iterator[tuple[str, tuple[Bundle, bytes]]]:
    """Return the bundles of the scoreboard's candidates and baselines that were scored."""
    board = decided.judgement.scoreboard
    for row in (*board["candidates"], *board["references"]):
        if row["bundle"] is not None and row.get("score") is not None:
            yield row["model_type"], fetch_bundle(decided.prepared.store, ClaimCheck.model_validate(row["bundle"]))


def _seconds(decided: Decided, model_type: str) -> float | None:
    """Return the processor seconds of the trainer of a candidate; None for a baseline and for a model that eval made.

    The seconds of a trainer of several model types are those of all of them.
    """
    for deployment, seconds in decided.cpu_seconds.items():
        if model_type in trained_by(deployment):
            return None if model_type in BASELINES else seconds
    return None


def _all_rows(decided: Decided, recipe: FittedRecipe, train: Features) -> tuple[Series, int]:
    """Return training and test rows in raw units, NaN where a cell was missing, and the number of training rows."""
    history = raw_rows(recipe, train)
    missing: BoolArray = train.imputed[:, : len(recipe.columns)]
    history = Series(history.times, history.columns, np.where(missing, np.nan, history.values), history.grid)
    test = decided.prepared.raw_test
    test = test.rows(decided.prepared.context_rows, len(test)).select(recipe.columns)
    return history.concat(test), len(history)


def _origins(bundles: Mapping[str, tuple[Bundle, bytes]], series: Series, train_rows: int, reach: int) -> IntArray:
    """Return the test rows from which every model can forecast, spread as eval spreads its origins."""
    usable = np.arange(train_rows, len(series))
    for made in bundles.values():
        usable = np.intersect1d(usable, Forecaster(BundleModel(*made)).valid_origins(series, train_rows))
    return origins_for(usable, series.segments(), first_row=train_rows, horizon=reach, limit=ORIGINS)


def _answers(
    made: tuple[Bundle, bytes], task: Task, series: Series, *, home: Path, cpu_seconds: float | None
) -> Forecasts:
    """Return the answers of ``/predict`` from the rows before each origin."""
    bundle, targets = made[0], task.series.columns
    sent = min(bundle.rows_required + SENT_HORIZONS * task.horizon, MOST_SENT_ROWS)
    bodies = (
        body_of(series, slice(max(0, origin - sent), origin), inference_length=task.horizon)
        for origin in task.origins.tolist()
    )
    steps = [answer["predictions"] for answer in answers_of(made, bodies, home)]

    def column(suffix: str) -> FloatArray:
        return np.array([[[step[f"{name}{suffix}"] for name in targets] for step in path] for path in steps], float)

    lower, upper = column("_lower"), column("_upper")
    if not np.isfinite(lower).all():
        return Forecasts(column(""), cpu_seconds=cpu_seconds)
    return Forecasts(column(""), lower, upper, cpu_seconds)
