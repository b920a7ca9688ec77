"""Make a data set of an upload: split, put on a grid, sampled, with a recipe fitted on the training rows only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from flts.contracts.events import Sampling
from flts.forecasting.recipe import Features, FittedRecipe, RecipeSpec, fit_recipe, transform
from flts.forecasting.series import Series
from flts.forecasting.splits import as_train
from flts.ingest.enough_rows import UsableRows, check_enough_rows
from flts.ingest.layout import Layout
from flts.ingest.report import describe, holidays_of, split_share
from flts.ingest.table import RawTable
from flts.recipe_settings import RecipeSettings
from flts.settings import WindowSettings
from preprocess_container.domain.sampling import sample_rows

WEEK_SECONDS = 7 * 86_400
LEAST_CONTEXT_ROWS = 2_016  # rows; the longest horizon that inference serves: a week of five-minute steps
MOST_CONTEXT_ROWS = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """The data set that preprocess makes of an upload."""

    recipe: FittedRecipe
    train: Features
    test: Features
    raw_test: Series
    """Raw units on the grid, NaN where missing; the first ``context_rows`` are training rows and never scored."""
    context_rows: int
    sampling: Sampling | None
    test_sampling: Sampling | None
    usable: UsableRows
    split_share: float | None
    report: dict[str, Any]


def make_dataset(
    train: RawTable,
    layout: Layout,
    recipe_settings: RecipeSettings,
    window_settings: WindowSettings,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> Dataset:
    """Make a data set of an upload.

    The order is split, then sample, then fit, so that the recipe's numbers depend on training rows only.

    Parameters
    ----------
    train : RawTable
        The uploaded training file.
    layout : Layout
        Its rows, and those of the test, on one grid.
    tell
        Called with the name of a step when the step begins.

    Raises
    ------
    RejectedError
        By `flts.ingest`, e.g. for too few rows.
    """
    tell("sample")
    train_rows, sampling = _sample(layout.train, recipe_settings.sample_train_rows, recipe_settings, stream=0)
    test_rows, test_sampling = _sample(layout.test, recipe_settings.sample_test_rows, recipe_settings, stream=1)
    tell("fit")
    recipe = fit_recipe(
        as_train(train_rows),
        RecipeSpec.of(recipe_settings),
        ignored=train.ignored,
        form=train.form,
        holidays=holidays_of(layout, recipe_settings),
    )
    tell("transform")
    joined = layout.joined and _is_end(train_rows, layout) and _is_start(test_rows, layout)
    context = _context(train_rows) if joined else train_rows.rows(0, 0)
    raw_test = context.concat(test_rows)
    features = transform(recipe, train_rows)
    test_features = _from(transform(recipe, raw_test), first_time=int(test_rows.times[0]))
    usable = UsableRows(
        train_rows=len(train_rows),
        train_pieces=_lengths(features),
        test_rows=len(test_rows),
        test_pieces=_lengths(test_features),
        warmup_rows=recipe.warmup_rows,
        joined=joined,
    )
    share = split_share(layout, recipe_settings)
    needed = check_enough_rows(usable, window_settings, split_share=share)
    return Dataset(
        recipe=recipe,
        train=features,
        test=test_features,
        raw_test=raw_test,
        context_rows=len(context),
        sampling=sampling,
        test_sampling=test_sampling,
        usable=usable,
        split_share=share,
        report=_report(train, layout, recipe, needed),
    )


def _sample(
    series: Series, rows: int | None, settings: RecipeSettings, *, stream: int
) -> tuple[Series, Sampling | None]:
    return sample_rows(series, rows=rows, strategy=settings.sample_strategy, seed=settings.sample_seed, stream=stream)


def _is_end(train_rows: Series, layout: Layout) -> bool:
    return bool(train_rows.times[-1] == layout.train.times[-1])


def _is_start(test_rows: Series, layout: Layout) -> bool:
    return bool(test_rows.times[0] == layout.test.times[0])


def _context(train_rows: Series) -> Series:
    """Return the last training rows: a week, at least `LEAST_CONTEXT_ROWS` and at most `MOST_CONTEXT_ROWS`."""
    rows = min(max(WEEK_SECONDS // train_rows.grid.step_seconds, LEAST_CONTEXT_ROWS), MOST_CONTEXT_ROWS)
    return train_rows.rows(max(len(train_rows) - rows, 0))


def _from(features: Features, *, first_time: int) -> Features:
    start = int(np.searchsorted(features.times, first_time))
    return Features(
        times=features.times[start:],
        names=features.names,
        values=features.values[start:],
        imputed=features.imputed[start:],
        grid=features.grid,
    )


def _lengths(features: Features) -> tuple[int, ...]:
    return tuple(piece.stop - piece.start for piece in features.segments())


def _report(train: RawTable, layout: Layout, recipe: FittedRecipe, rows_needed: int) -> dict[str, Any]:
    report = describe(train, layout, recipe, rows_needed=rows_needed).as_dict()
    # The report is stored under config_hash, which does not cover the window settings. `rows_needed` and the horizon
    # depend on them and are removed, so that runs with other window settings can reuse the report.
    del report["rows_needed"], report["horizon_steps"]
    return report
