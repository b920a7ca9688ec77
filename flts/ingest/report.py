"""Report what an upload contains and whether it can be trained on, before a pipeline run is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from flts.forecasting.by_column import missing_cells
from flts.forecasting.recipe import FittedRecipe, RecipeSpec, fit_recipe
from flts.forecasting.series import GridReport, Series, iso
from flts.forecasting.splits import as_train
from flts.ingest.enough_rows import UsableRows, check_enough_rows, few_rows_note, horizon_of, piece_lengths
from flts.ingest.holiday_dates import holiday_days
from flts.ingest.layout import Layout, lay_out
from flts.ingest.table import RawTable
from flts.recipe_settings import RecipeSettings
from flts.settings import WindowSettings

NOTABLE_SHARE = 0.05
"""Share of missing cells; a column with a larger share gets a warning even if it is kept."""


@dataclass(frozen=True, slots=True)
class PartReport:
    """The report on the training rows or on the test rows."""

    rows: int
    """Rows as uploaded."""
    start: str
    end: str
    inserted_rows: int
    """Rows of missing cells that fill short gaps."""
    segments: int
    """Pieces between the longer gaps."""
    gaps: list[dict[str, str | float]]
    """The longest gaps: the time before the gap, its steps, and ``filled`` or ``cut``."""
    gap_count: int
    off_calendar_rows: int
    """Rows that were left out because the calendar of the step does not contain their times."""
    moved_rows: int
    """Rows that were nearly at a time of the step and were moved to it."""
    largest_shift_seconds: int
    missing_share: dict[str, float]
    """Share of missing cells per column, inserted rows included."""
    duplicate_times: int = 0
    """Always 0: rows of one time were brought together before (`flts.ingest.rows`)."""


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """The answer to an upload; `as_dict` is its JSON."""

    time_column: str
    columns: tuple[str, ...]
    ignored_columns: tuple[str, ...]
    targets: tuple[str, ...]
    step: str
    """Step in words: ``10 min``, ``1 month, first day``."""
    step_seconds: int
    """Seconds between two rows; the mean if they vary, and inside a day if rows are not at all hours."""
    train: PartReport
    test: PartReport
    test_from: str
    """``file``, or ``split``: the last rows of the training file, in time."""
    test_follows_train: bool
    """Whether the test follows without a cut, so that the end of the training rows is its context."""
    constant_columns: dict[str, float]
    dropped_columns: dict[str, str]
    """Reason by column name."""
    rows_needed: int
    """Least number of training rows without a gap from which a model can be trained with these windows and tails."""
    horizon_steps: int | None = None
    """Steps ahead that models are judged at and served for (``HORIZON``); None before it is known."""
    understood: tuple[str, ...] = ()
    """What was read, one fact a line, with the setting that decides otherwise: the time column and its form, the step,
    and the first rows."""
    warnings: list[str] = field(default_factory=list)
    future_columns: tuple[str, ...] = ()
    """Columns whose values are known ahead."""
    holidays: tuple[str, ...] = ()
    """Codes of the public holidays that models take into account (``HOLIDAYS``)."""

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return asdict(self)


def validation_report(
    train: RawTable,
    test: RawTable | None,
    recipe_settings: RecipeSettings,
    window_settings: WindowSettings,
) -> ValidationReport:
    """Describe an upload, or refuse an upload that cannot be trained on.

    Parameters
    ----------
    train, test
        The tables that `read_csv` returned; without a test file the last rows of ``train`` are the test.

    Raises
    ------
    RejectedError
        By `flts.ingest.layout.lay_out` and `flts.forecasting.recipe.fit_recipe`, e.g. for a target that is no column
        (``field`` is ``TARGETS``).
    SeriesTooShortError
        ``too_few_rows``; the message names the number needed.
    """
    layout = lay_out(train, test, recipe_settings)
    recipe = fit_recipe(
        as_train(layout.train),
        RecipeSpec.of(recipe_settings),
        ignored=train.ignored,
        holidays=holidays_of(layout, recipe_settings),
    )
    sampled_train, sampled_test = _sampled(layout, recipe_settings)
    # `_sampled` returns the first rows, as many as the sample will have, so that the report can check whether they are
    # enough. Preprocess chooses the rows of the sample itself.
    is_sample = (len(sampled_train) < len(layout.train), len(sampled_test) < len(layout.test))
    moves_test = is_sample[1] and recipe_settings.sample_strategy == "random"
    joined = layout.joined and not is_sample[0] and not moves_test
    usable = UsableRows(
        train_rows=len(sampled_train),
        train_pieces=piece_lengths(sampled_train, recipe, warmup_rows=recipe.warmup_rows),
        test_rows=len(sampled_test),
        test_pieces=piece_lengths(sampled_test, recipe, warmup_rows=0 if joined else recipe.warmup_rows),
        warmup_rows=recipe.warmup_rows,
        joined=joined,
    )
    share = split_share(layout, recipe_settings)
    needed = check_enough_rows(usable, window_settings, split_share=share)
    horizon = horizon_of(usable, layout.train.grid, window_settings)
    report = replace(describe(train, layout, recipe, rows_needed=needed), horizon_steps=horizon.steps)
    notes = (few_rows_note(usable, window_settings, split_share=share), horizon.note)
    report.warnings.extend(note for note in notes if note)
    # The notes on both files are often equal, because both are written in the same form.
    report.warnings.extend(dict.fromkeys((*train.notes, *(test.notes if test else ()))))
    if any(is_sample):
        report.warnings.append(
            f"only a sample will be used: {len(sampled_train)} of {len(layout.train)} training rows, "
            f"{len(sampled_test)} of {len(layout.test)} test rows"
        )
    return report


def holidays_of(layout: Layout, settings: RecipeSettings) -> Mapping[str, tuple[int, ...]]:
    """Return the days of holidays from the first training row to two years after the last row; raises as it."""
    ends = np.array([layout.train.times[0], layout.test.times[-1]])
    return holiday_days(settings.holidays, *layout.train.grid.clock(ends).tolist())


def split_share(layout: Layout, settings: RecipeSettings) -> float | None:
    """Return the share of training rows in the file, or None if the test has a file or training rows are sampled."""
    if layout.has_test_file or settings.sample_train_rows is not None:
        return None
    return settings.train_test_split


def describe(train: RawTable, layout: Layout, recipe: FittedRecipe, *, rows_needed: int) -> ValidationReport:
    """Return the report on the arranged rows and on the recipe that was fitted on them."""
    report = ValidationReport(
        time_column=train.time_column,
        columns=train.columns,
        ignored_columns=train.ignored,
        targets=recipe.targets,
        step=layout.train.grid.text,
        step_seconds=layout.train.grid.step_seconds,
        train=_part(layout.train, layout.train_grid),
        test=_part(layout.test, layout.test_grid),
        test_from="file" if layout.has_test_file else "split",
        test_follows_train=layout.joined,
        constant_columns=dict(recipe.constants),
        dropped_columns={name: why for name, why in recipe.dropped.items() if name not in train.ignored},
        rows_needed=rows_needed,
        understood=_understood(train, layout),
        future_columns=recipe.future_columns,
        holidays=tuple(dict.fromkeys(name.split("_")[1] for name in recipe.holidays)),  # holiday_DE_weekend
    )
    report.warnings.extend(_warnings(report, layout))
    return report


def _understood(train: RawTable, layout: Layout) -> tuple[str, ...]:
    times, *rows = train.understood or ("",)
    form = f"{train.time_format.pattern}, {train.time_format.zone or 'UTC'} (TIME_FORMAT, TIME_ZONE)"
    return (f"{times}, {form}", f"step: {layout.train.grid.text} (STEP)", *rows) if times else ()


def _part(series: Series, grid: GridReport) -> PartReport:
    # The grid of the test part may begin at the last training row, so `gaps` may contain the gap between the two parts.
    # `series` does not contain this row, so `rows` does not count it.
    return PartReport(
        rows=len(series) - grid.inserted_rows,
        start=iso(series.times[0]),
        end=iso(series.times[-1]),
        inserted_rows=grid.inserted_rows,
        segments=len(series.segments()),
        gaps=list(grid.gaps),
        gap_count=grid.filled_gaps + grid.cut_gaps,
        off_calendar_rows=grid.off_calendar_rows,
        moved_rows=grid.moved_rows,
        largest_shift_seconds=grid.largest_shift_seconds,
        missing_share={
            column: round(missing_cells(series.values, at) / len(series), 6) for at, column in enumerate(series.columns)
        },
    )


def _warnings(report: ValidationReport, layout: Layout) -> list[str]:
    warnings = [
        f"column {cell.column}: {cell.value:,g} at {cell.at} is implausible and counts as missing "
        f"(implausible cells of the column: {cell.count:,})"
        for cell in layout.implausible
    ]
    if layout.rows_of_step is not None:
        before, after = layout.rows_of_step
        warnings.append(f"{before:,} rows became {after:,} at a step of {report.step} (STEP)")
    if layout.future_rows:
        warnings.append(
            f"the last {layout.future_rows} rows have no value: they are the future, and the forecast begins there"
        )
    warnings += [f"column {name} is dropped: {reason}" for name, reason in report.dropped_columns.items()]
    if report.constant_columns:
        names = ", ".join(report.constant_columns)
        warnings.append(f"constant in the training rows, answered by the constant: {names}")
    for title, part in (("training", report.train), ("test", report.test)):
        if part.off_calendar_rows:
            warnings.append(
                f"{part.off_calendar_rows} {title} rows are at times that few other rows have and were left out; "
                f"the step is {report.step}"
            )
        if part.moved_rows:
            warnings.append(
                f"{part.moved_rows} {title} rows were up to {part.largest_shift_seconds:,} s off the step "
                f"({report.step}) and were moved to it"
            )
        if part.inserted_rows:
            warnings.append(f"{part.inserted_rows} missing rows of short gaps were filled in the {title} rows")
        if part.segments > 1:
            warnings.append(f"long gaps cut the {title} rows into {part.segments} pieces; no window crosses a cut")
        warnings.extend(
            f"column {name}: {share:.1%} of the {title} cells are missing"
            for name, share in part.missing_share.items()
            if share > NOTABLE_SHARE and name not in report.dropped_columns
        )
    if not report.test_follows_train:
        warnings.append("the test does not follow the training rows: its first rows only serve as context")
    return warnings


def _sampled(layout: Layout, settings: RecipeSettings) -> tuple[Series, Series]:
    """Return the first rows of each part, as many as sampling will keep."""
    return layout.train.rows(0, settings.sample_train_rows), layout.test.rows(0, settings.sample_test_rows)
