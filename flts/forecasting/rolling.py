"""Forecast horizons longer than one pass of the model: the forecasts of a pass are inputs of the next pass."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flts.errors import RejectedError, SeriesTooShortError
from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.series import FloatArray, IntArray
from flts.forecasting.time_features import TIME_FEATURES, time_features
from flts.forecasting.windows import Float32Array

WINDOW_INPUT = "window"
Inputs = Mapping[str, NDArray[Any]]
"""Arrays of one model call by the names of the model's inputs; the first dimension is the batch of origins."""
Model = Callable[[Inputs], NDArray[np.floating[Any]]]
"""Inputs in, scaled varying targets (b, H, m) out."""
WindowModel = Callable[[Float32Array], NDArray[np.floating[Any]]]
"""Windows (b, L, f) in, scaled varying targets (b, H, m) out."""
SPARE_ROWS = 64
"""Rows that are allocated at once; a call that computes time features for many rows costs less per row."""
BATCH_CELLS = 2**20
"""Numbers in the inputs of one batch; about 16 MB, because float32 and float64 arrays hold them."""


class PassState(Protocol):
    """The rows of a batch of origins, from which a pass of the model forecasts, and which forecasts extend."""

    def inputs(self) -> Inputs:
        """Return the model's next inputs."""
        ...

    def append(self, predictions: NDArray[np.floating[Any]]) -> None:
        """Append forecasts (b, H, m), scaled varying targets, as the next H rows."""
        ...


class PassInputs(Protocol):
    """Makes the first inputs of forecasts, by the kind of a model's inputs."""

    @property
    def context_rows(self) -> int:
        """Rows before an origin that are read."""
        ...

    @property
    def cells(self) -> int:
        """Numbers in the inputs of one origin."""
        ...

    @property
    def known_columns(self) -> IntArray:
        """Positions of the columns, among the measured ones, whose values at the steps are inputs; (q,)."""
        ...

    def start(self, scaled: FloatArray, last_times: IntArray, ahead: FloatArray | None = None) -> PassState:
        """Return a state whose forecasts begin after the last given row.

        Parameters
        ----------
        scaled : (b, r, k)
            Scaled measured rows, as `scaled_rows` makes them; the last ``context_rows`` are used.
        last_times : (b,)
            Time of the last row of each origin, epoch seconds.
        ahead : (b, h, q), optional
            Scaled values of ``known_columns`` at the steps; needed if there are such columns.
        """
        ...


@dataclass(frozen=True, slots=True)
class WindowInputs:
    """Makes the windows of a model of windows; a `PassInputs`."""

    recipe: FittedRecipe
    input_seq_len: int

    @property
    def context_rows(self) -> int:
        """The window and the rows that its lags need."""
        return self.input_seq_len + self.recipe.warmup_rows

    @property
    def cells(self) -> int:
        """See `PassInputs`."""
        return self.input_seq_len * len(self.recipe.feature_names)

    @property
    def known_columns(self) -> IntArray:
        """See `PassInputs`: a window contains no later row."""
        return np.empty(0, dtype=np.int64)

    def start(self, scaled: FloatArray, last_times: IntArray, ahead: FloatArray | None = None) -> RollState:  # noqa: ARG002
        """See `PassInputs`."""
        return RollState.start(self.recipe, scaled=scaled, last_times=last_times, input_seq_len=self.input_seq_len)


class RollState:
    """The rows and features of a batch of origins, which forecasts extend.

    `start` makes it from scaled measured rows, `at_origins` from the rows of one series. Appended forecasts are not
    clipped.
    """

    __slots__ = ("_end", "_features", "_input_seq_len", "_lags", "_last_times", "_need", "_recipe", "_rows")

    def __init__(self, recipe: FittedRecipe, rows: FloatArray, last_times: IntArray, input_seq_len: int) -> None:
        self._recipe = recipe
        self._input_seq_len = input_seq_len
        self._need = input_seq_len + recipe.warmup_rows
        self._lags = np.array(recipe.lags, dtype=np.int64)
        self._rows = rows
        self._end = rows.shape[1]
        self._last_times = last_times
        self._features = np.zeros((len(rows), self._need, len(recipe.feature_names)), dtype=np.float32)
        first = self._end - input_seq_len
        self._write_features(first, self._end)
        self._write_times(first, self._end, recipe.grid.before(last_times, input_seq_len))

    @classmethod
    def start(cls, recipe: FittedRecipe, *, scaled: FloatArray, last_times: IntArray, input_seq_len: int) -> RollState:
        """Return a state whose forecasts begin after the last given row.

        Parameters
        ----------
        scaled : (b, r, k)
            Scaled measured rows, as `scaled_rows` makes them; the last ``input_seq_len + warmup_rows`` are used.
        last_times : (b,)
            Time of the last row of each origin, epoch seconds.

        Raises
        ------
        SeriesTooShortError
            If ``scaled`` has fewer rows; the message names the number needed.
        """
        need = input_seq_len + recipe.warmup_rows
        if scaled.shape[1] < need:
            msg = f"a forecast needs the last {need} rows; there are {scaled.shape[1]}"
            raise SeriesTooShortError(msg)
        return cls(recipe, scaled[:, -need:], last_times, input_seq_len)

    @classmethod
    def at_origins(
        cls, recipe: FittedRecipe, *, scaled: FloatArray, times: IntArray, origins: IntArray, input_seq_len: int
    ) -> RollState:
        """Return a state whose forecasts begin at the rows ``origins`` (b,) of a series: scaled (n, k), times (n,)."""
        need = input_seq_len + recipe.warmup_rows
        if len(origins) and origins.min() < need:
            msg = f"a forecast needs the {need} rows before it; row {origins.min()} has fewer"
            raise SeriesTooShortError(msg)
        rows = scaled[origins[:, None] + np.arange(-need, 0)]
        return cls(recipe, rows, times[origins - 1], input_seq_len)

    def inputs(self) -> Inputs:
        """Return the model's next inputs: its window."""
        return {WINDOW_INPUT: self.windows()}

    def windows(self) -> Float32Array:
        """Return the model's next input, (b, L, f)."""
        return np.ascontiguousarray(self._features[:, self._end - self._input_seq_len : self._end])

    def next_times(self, steps: int) -> IntArray:
        """Return the times of the next rows, (b, steps), epoch seconds."""
        return self._recipe.grid.after(self._last_times, steps)

    def append(self, predictions: NDArray[np.floating[Any]]) -> None:
        """Append forecasts (b, H, m), scaled varying targets, as the next H rows.

        Raises
        ------
        RejectedError
            ``horizon_too_long`` if the recipe has inputs that no model forecasts.
        """
        recipe = self._recipe
        if not recipe.forecasts_its_inputs:
            raise horizon_too_long(recipe, predictions.shape[1])
        steps = predictions.shape[1]
        if self._end + steps > self._rows.shape[1]:
            self._make_room(max(steps, SPARE_ROWS))
        first, self._end = self._end, self._end + steps
        self._rows[:, first : self._end, recipe.varying_columns] = predictions
        self._last_times = recipe.grid.after(self._last_times, steps)[:, -1]
        self._write_features(first, self._end)

    def _make_room(self, spare: int) -> None:
        """Keep the rows that the next window needs, and allocate new rows with constants and time features."""
        kept = slice(self._end - self._need, self._end)
        rows = np.empty((len(self._rows), self._need + spare, self._rows.shape[2]))
        rows[:, : self._need] = self._rows[:, kept]
        rows[:, self._need :] = self._recipe.scaled_constants
        features = np.zeros((*rows.shape[:2], self._features.shape[2]), dtype=np.float32)
        features[:, : self._need] = self._features[:, kept]
        self._rows, self._features, self._end = rows, features, self._need
        self._write_times(self._need, self._need + spare, self.next_times(spare))

    def _write_times(self, first: int, stop: int, times: IntArray) -> None:
        if self._recipe.time_features:
            k = self._rows.shape[2]
            self._features[:, first:stop, k : k + len(TIME_FEATURES)] = time_features(self._recipe.grid.clock(times))

    def _write_features(self, first: int, stop: int) -> None:
        recipe = self._recipe
        k = self._rows.shape[2]
        self._features[:, first:stop, :k] = self._rows[:, first:stop]
        if recipe.lags:
            earlier = np.arange(first, stop)[:, None] - self._lags
            lagged = self._rows[:, earlier][..., recipe.varying_columns]  # (batch, rows, lags, targets)
            made = lagged.shape[2] * lagged.shape[3]
            self._features[:, first:stop, -made:] = lagged.swapaxes(2, 3).reshape(*lagged.shape[:2], made)


def forecast_passes(state: PassState, horizon_steps: int) -> Generator[Inputs, NDArray[np.floating[Any]], FloatArray]:
    """Forecast any horizon: append the forecasts of each pass to the rows, and cut the last pass at the horizon.

    The generator yields the inputs of each pass, receives the model's answer (b, H, m) by ``send``, and returns
    (b, horizon_steps, m), scaled varying targets.

    Raises
    ------
    RejectedError
        ``horizon_too_long`` beyond one pass if the recipe has inputs that no model forecasts.
    """
    answers: list[FloatArray] = []
    done = 0
    while True:
        answer = np.asarray((yield state.inputs()), dtype=np.float64)
        answers.append(answer[:, : horizon_steps - done])
        done += answer.shape[1]
        if done >= horizon_steps:
            return np.concatenate(answers, axis=1)  # a copy, so that the steps that were cut off need no memory
        state.append(answer)


def run_passes(model: Model, state: PassState, horizon_steps: int) -> FloatArray:
    """Forecast any horizon with a model, as `forecast_passes` does; return (b, horizon_steps, m)."""
    passes = forecast_passes(state, horizon_steps)
    inputs = next(passes)
    while True:
        try:
            inputs = passes.send(model(inputs))
        except StopIteration as done:
            forecast: FloatArray = done.value
            return forecast


def forecast_origins(
    model: Model,
    source: PassInputs,
    *,
    scaled: FloatArray,
    times: IntArray,
    origins: IntArray,
    horizon_steps: int,
    most_origins: int,
) -> FloatArray:
    """Forecast from many rows of a scaled series, in batches of at most ``most_origins``.

    Parameters
    ----------
    model : Model
    source : PassInputs
        Makes the inputs of ``model``.
    scaled : (n, k)
        Scaled raw columns, in the recipe's order.
    times : (n,)
        Epoch seconds.
    origins : (b,)
        Row of the first forecast step of each origin, at least one.
    horizon_steps, most_origins : int

    Returns
    -------
    (b, horizon_steps, m)
        Scaled varying targets.

    Raises
    ------
    SeriesTooShortError
        If an origin has fewer than ``source.context_rows`` rows before it.
    """
    need = source.context_rows
    if origins.min() < need:
        msg = f"a forecast needs the {need} rows before it; row {origins.min()} has fewer"
        raise SeriesTooShortError(msg)
    size = origins_a_batch(source.cells, most=most_origins)
    before, steps, known = np.arange(-need, 0), np.arange(horizon_steps), source.known_columns
    parts = []
    for at in range(0, len(origins), size):
        batch = origins[at : at + size]
        # Steps after the last row repeat its values; their forecasts are compared with nothing.
        ahead = scaled[np.minimum(batch[:, None] + steps, len(scaled) - 1)[..., None], known] if len(known) else None
        state = source.start(scaled[batch[:, None] + before], times[batch - 1], ahead)
        parts.append(run_passes(model, state, horizon_steps))
    return np.concatenate(parts)


def roll_forecast(model: WindowModel, state: RollState, horizon_steps: int) -> FloatArray:
    """Forecast any horizon with a model of windows, as `forecast_passes` does; return (b, horizon_steps, m)."""
    return run_passes(lambda inputs: model(inputs[WINDOW_INPUT]), state, horizon_steps)


def origins_a_batch(cells: int, *, most: int) -> int:
    """Return the number of origins per batch: at most ``most``, and fewer if `BATCH_CELLS` requires it.

    Parameters
    ----------
    cells : int
        Numbers in the inputs of one origin.
    """
    return max(1, min(most, BATCH_CELLS // cells))


def can_roll(recipe: FittedRecipe) -> bool:
    """Return whether every measured input is a target or constant, so that forecasts can be fed back."""
    return recipe.forecasts_its_inputs


def horizon_too_long(recipe: FittedRecipe, longest_steps: int) -> RejectedError:
    """Return the error for a horizon beyond one pass; it names the inputs that no model forecasts."""
    inputs = [name for name in recipe.columns if name not in recipe.targets and name not in recipe.constants]
    shown = ", ".join(inputs)
    msg = f"the longest horizon is {longest_steps} steps: the model's inputs {shown} are not among its targets"
    return RejectedError(msg, code="horizon_too_long", field="inference_length")
