"""Forecasts in raw units from rows in raw units. Serving, calibration and eval use the same code."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from flts.bundle.format import Bundle
from flts.bundle.model import BundleModel
from flts.bundle.tensors import InputKind
from flts.errors import RejectedError, SeriesTooShortError
from flts.forecasting.direct import DirectInputs
from flts.forecasting.intervals import MEDIAN, bounds
from flts.forecasting.quantiles import median_offsets
from flts.forecasting.recipe import FittedRecipe, all_targets, kept_rows, scale_known, scaled_rows, unscale_targets
from flts.forecasting.rolling import (
    Inputs,
    PassInputs,
    WindowInputs,
    can_roll,
    forecast_origins,
    forecast_passes,
)
from flts.forecasting.series import BoolArray, FloatArray, IntArray, Series
from flts.forecasting.windows import target_rows

ORIGINS_A_BATCH = 64
"""Origins per model call; more would need more memory, fewer would need more time per origin."""

Passes = Generator[Inputs, FloatArray, "Forecast"]


@dataclass(frozen=True, slots=True)
class Forecast:
    """A forecast in raw units."""

    times: IntArray
    """(h,) epoch seconds."""
    targets: tuple[str, ...]
    mean: FloatArray
    """(h, M), one column per target, constant targets included; moved by the median residual if the bundle says so."""
    lower: FloatArray | None
    """(h, M), or None if there were too few residuals for a calibration."""
    upper: FloatArray | None
    imputed_cells: int
    """Number of missing cells in the window that were filled."""
    calibrated_steps: int
    """Number of steps with calibrated bounds; the bounds of later steps are widened by the last slope."""


class Forecaster:
    """Forecasts with the model and the recipe of a bundle.

    Parameters
    ----------
    model : BundleModel
    """

    def __init__(self, model: BundleModel) -> None:
        self.model = model
        self.bundle = model.bundle
        self.recipe = model.bundle.recipe
        self.rows_required = model.bundle.rows_required
        self.max_horizon = model.bundle.max_horizon_steps
        """Longest forecast in steps; None means no limit."""
        self.inputs: PassInputs | None = _INPUTS[self.bundle.input_kind](self.bundle)
        """Makes the inputs of the model; None if they are times alone."""
        self.limits = limits_of(self.bundle)
        """Lowest and highest value of each target, (M,) each, or None without limits."""
        self.is_median = self.bundle.point == "median" and self.bundle.calibrated_steps > 0
        """Whether forecasts are moved by the median residual."""
        own = self.bundle.intervals
        self.intervals = own.around(MEDIAN) if own is not None and self.is_median else own
        """Quantiles of the differences between actuals and the forecasts of this object, None without any."""
        self.varying = [at for at, name in enumerate(self.recipe.targets) if name not in self.recipe.constants]
        """Positions of the targets that are not constant."""

    def forecast(self, series: Series, horizon_steps: int, future: FloatArray | None = None) -> Forecast:
        """Forecast the steps after the last row of a series.

        Parameters
        ----------
        series : Series
            Raw units; all rows are context, the last ``rows_required`` rows are the window.
        horizon_steps : int
        future : (horizon_steps, q), optional
            Values of the bundle's ``future_columns`` at the steps, raw units; needed if there are such columns.

        Raises
        ------
        SeriesTooShortError
            With the number of rows needed.
        RejectedError
            ``horizon_too_long``; ``missing_future``; ``uneven_times`` for a gap or another step inside the window;
            ``missing_values`` for a missing cell if the recipe does not fill cells; the recipe's error for a missing
            column.
        """
        passes = self.passes(series, horizon_steps, future)
        try:
            inputs = next(passes)
            while True:
                inputs = passes.send(self.model.run(inputs))
        except StopIteration as done:
            forecast: Forecast = done.value
            return forecast

    def passes(self, series: Series, horizon_steps: int, future: FloatArray | None = None) -> Passes:
        """Forecast pass by pass, so that a server can run the inputs of several requests in one model call.

        The generator yields the inputs of the model for one origin, receives the model's answer (1, H, m) by ``send``,
        and returns the forecast. For a timestamps model it yields nothing. Raises as `forecast` does.
        """
        self._check_request(series, horizon_steps)
        times = self.recipe.grid.after(series.times[-1:], horizon_steps)[0]
        if self.inputs is None:
            return self._finish(times, self.at_times(times), imputed_cells=0)
        scaled, imputed = scaled_rows(self.recipe, series)
        imputed = imputed[-self.rows_required :]
        if self.recipe.drops_rows:
            self._refuse_missing(series, imputed)
        ahead = self.scaled_future(future)
        state = self.inputs.start(
            scaled[None, -self.rows_required :], series.times[-1:], None if ahead is None else ahead[None]
        )
        answers = yield from forecast_passes(state, horizon_steps)
        return self._finish(times, answers[0], imputed_cells=int(imputed.sum()))

    def forecast_origins(self, series: Series, origins: IntArray, horizon_steps: int) -> FloatArray:
        """Forecast from many origins in a series.

        Parameters
        ----------
        series : Series
            Raw units.
        origins : (n,)
            Row of the first forecast step of each forecast; the window ends before it. See `valid_origins`.
        horizon_steps : int

        Returns
        -------
        (n, horizon_steps, M)
            Raw units, all targets in the order of the recipe.
        """
        self._check_horizon(horizon_steps)
        recipe = self.recipe
        if self.inputs is None:
            times = recipe.grid.after(series.times[origins - 1], horizon_steps)
            distinct, inverse = np.unique(times, return_inverse=True)
            answers = self.at_times(distinct)[inverse.reshape(times.shape)]
            return self.raw(answers)
        if len(origins) == 0:
            return np.empty((0, horizon_steps, len(recipe.targets)))
        scaled, _ = scaled_rows(recipe, series)
        answers = forecast_origins(
            self.model.run,
            self.inputs,
            scaled=scaled,
            times=series.times,
            origins=origins,
            horizon_steps=horizon_steps,
            most_origins=ORIGINS_A_BATCH,
        )
        return self.raw(answers)

    def valid_origins(self, series: Series, first_row: int) -> IntArray:
        """Return the rows from ``first_row`` on whose complete window is in the same segment.

        If the recipe drops rows with missing cells, the window of a returned row contains no missing cell.
        """
        required = self.rows_required
        usable = np.ones(len(series), dtype=np.int64)
        if self.bundle.reads_values:
            usable = kept_rows(self.recipe, series).astype(np.int64)
        seen = np.concatenate([[0], np.cumsum(usable)])
        rows = target_rows(series.segments(), context_rows=required, first_row=first_row, last_row=len(series))
        valid: IntArray = rows[seen[rows] - seen[rows - required] == required]
        return valid

    def scaled_future(self, future: FloatArray | None) -> FloatArray | None:
        """Return values (h, q) of the bundle's ``future_columns`` scaled, or None if the model needs none.

        Raises
        ------
        RejectedError
            ``missing_future`` if it needs some and none are given.
        """
        names = self.bundle.future_columns
        if not names:
            return None
        if future is None:
            msg = f"future: the forecast needs the values of {', '.join(names)[:200]} at its steps"
            raise RejectedError(msg, code="missing_future", field="future")
        return scale_known(self.recipe, future)

    def at_times(self, times: IntArray) -> FloatArray:
        """Return the answers (n, m) of a timestamps model for times (n,), which it sees on the data set's clock."""
        return self.model.run_timestamps(self.recipe.grid.clock(times))

    def raw(self, scaled: FloatArray, ahead: IntArray | None = None) -> FloatArray:
        """Return the forecasts of a model's answers, in raw units and within the limits.

        All forecasts are made here: those of requests, of the test rows and of eval.

        Parameters
        ----------
        scaled : (..., h, m)
            Answers of the model.
        ahead : (h,), optional
            Steps ahead of the answers; 1 to h if it is not given.

        Returns
        -------
        (..., h, M)
            Constant targets inserted.
        """
        if not self.varying:
            scaled = scaled[..., :0]  # if all targets are constant, the model returns a column of zeros, not a target
        values = unscale_targets(self.recipe, scaled)
        if self.is_median and self.bundle.intervals is not None:
            ahead = np.arange(1, scaled.shape[-2] + 1) if ahead is None else ahead
            offsets = median_offsets(self.bundle.intervals, ahead)
            values = values if offsets is None else values + offsets
        return self.limited(all_targets(self.recipe, values))

    def limited(self, values: FloatArray) -> FloatArray:
        """Return forecasts or bounds (..., M) within the limits of their targets; NaN stays NaN."""
        return values if self.limits is None else np.clip(values, *self.limits)

    def _finish(self, times: IntArray, scaled: FloatArray, *, imputed_cells: int) -> Forecast:
        mean = self.raw(scaled)
        intervals = self.intervals
        lower = upper = None
        if not self.varying:
            lower = upper = mean
        elif intervals is not None:
            # Bounds of the forecast within the limits, as `/predict` computes them.
            found = bounds(intervals, mean[:, self.varying])
            if found is not None:
                lower, upper = mean.copy(), mean.copy()
                lower[:, self.varying], upper[:, self.varying] = found
                lower, upper = self.limited(lower), self.limited(upper)
        return Forecast(
            times=times,
            targets=tuple(self.recipe.targets),
            mean=mean,
            lower=lower,
            upper=upper,
            imputed_cells=imputed_cells,
            calibrated_steps=self.bundle.calibrated_steps,
        )

    def _check_request(self, series: Series, horizon_steps: int) -> None:
        self._check_horizon(horizon_steps)
        required = self.rows_required
        if len(series) < required:
            msg = f"{required} rows are needed, {len(series)} were given"
            raise SeriesTooShortError(msg, field="data")
        window = series.times[-required:]
        broken = self.recipe.grid.breaks(window)
        if broken.any():
            at = int(np.argmax(broken))
            msg = (
                f"the last {required} rows must be one step ({self.recipe.grid.text}) apart; row "
                f"{len(series) - required + at + 2} of {len(series)} comes {int(window[at + 1] - window[at])} s after "
                "the one before it"
            )
            raise RejectedError(msg, code="uneven_times", field="data")

    def _check_horizon(self, horizon_steps: int) -> None:
        if horizon_steps < 1:
            _refuse_horizon("a forecast has at least one step")
        if self.max_horizon is not None and horizon_steps > self.max_horizon:
            _refuse_horizon(
                f"this model forecasts at most {self.max_horizon} steps, since not all of its inputs are its targets"
            )

    def _refuse_missing(self, series: Series, imputed: BoolArray) -> None:
        if imputed.any():
            row, column = (int(at) for at in np.argwhere(imputed)[0])
            name = self.recipe.columns[column]
            msg = (
                f"{name} is missing in row {len(series) - self.rows_required + row + 1} of {len(series)}; "
                "this model's recipe fills no missing cells"
            )
            raise RejectedError(msg, code="missing_values", field=name)


def limits_of(bundle: Bundle) -> tuple[FloatArray, FloatArray] | None:
    """Return the lowest and the highest value of each target, (M,) each, infinite without a limit; None without any."""
    if not bundle.limits:
        return None
    pairs = [bundle.limits.get(name, (None, None)) for name in bundle.targets]
    lowest = np.array([-np.inf if lower is None else lower for lower, _ in pairs])
    return lowest, np.array([np.inf if upper is None else upper for _, upper in pairs])


def longest_horizon(recipe: FittedRecipe, output_seq_len: int) -> int | None:
    """Return the longest forecast of a window model in steps: one pass, or None if it forecasts all of its inputs."""
    return None if can_roll(recipe) else output_seq_len


_INPUTS: dict[InputKind, Callable[[Bundle], PassInputs | None]] = {
    "window": lambda bundle: WindowInputs(bundle.recipe, bundle.input_seq_len),
    "timestamps": lambda _: None,
    "direct": lambda bundle: DirectInputs(
        bundle.recipe, bundle.inputs, bundle.seasons, bundle.input_seq_len, bundle.horizon_steps
    ),
}


def _refuse_horizon(message: str) -> NoReturn:
    raise RejectedError(message, code="horizon_too_long", field="inference_length")
