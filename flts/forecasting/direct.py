"""Inputs of models that forecast every step of the horizon in one pass: past rows and the calendar."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.grid import Grid
from flts.forecasting.places import TURNS, clock_turns, season_places
from flts.forecasting.rolling import Inputs, horizon_too_long
from flts.forecasting.series import FloatArray, IntArray
from flts.forecasting.windows import Float32Array

PAST, PLACES, CLOCK, SECONDS, FUTURE = "past", "places", "clock", "seconds", "future"
DIRECT_INPUTS = (PAST, PLACES, CLOCK, SECONDS, FUTURE)
"""Names of the inputs that a direct model may take, in their order."""
REMEMBERED_ORIGINS = 32
"""Origins whose places and turns are cached; most requests have one of the latest few last times."""
_INT64_CELLS = 2  # numbers of float32 in one int64


class Calendar:
    """Places and turns at the window rows and the forecast steps of origins.

    Parameters
    ----------
    grid : Grid
    seasons : tuple of s ints
        Lengths in rows, for the places.
    names : tuple
        What the model takes; `PLACES`, `CLOCK` and `SECONDS` are made here.
    window_rows, horizon_steps : int
    """

    def __init__(
        self, grid: Grid, seasons: tuple[int, ...], names: tuple[str, ...], window_rows: int, horizon_steps: int
    ) -> None:
        self._grid = grid
        self._seasons = seasons
        self._names = tuple(name for name in (PLACES, CLOCK, SECONDS) if name in names)
        self._window_rows = window_rows
        self._horizon_steps = horizon_steps
        self._remembered: dict[int, dict[str, NDArray[Any]]] = {}

    def at(self, last_times: IntArray) -> Inputs:
        """Return the inputs of origins with these last times, (b,).

        ``places`` is (b, L + H, s) int64, ``clock`` (b, L + H, 3) float32, and ``seconds`` (b, L + H) int64, since 1970
        on the clock of the data set.
        """
        if not self._names:
            return {}
        distinct, inverse = np.unique(last_times, return_inverse=True)
        made = self._made(distinct) if len(distinct) > REMEMBERED_ORIGINS else self._known(distinct)
        if len(distinct) == 1:
            return {name: np.repeat(rows, len(last_times), axis=0) for name, rows in made.items()}
        return {name: rows[inverse] for name, rows in made.items()}

    def _known(self, distinct: IntArray) -> Inputs:
        found = {time: self._remembered.get(time) for time in distinct.tolist()}
        missing = [time for time, rows in found.items() if rows is None]
        if missing:
            made = self._made(np.array(missing, dtype=np.int64))
            # Copies, because a view would keep the rows of all origins in memory.
            new = {time: {name: rows[at].copy() for name, rows in made.items()} for at, time in enumerate(missing)}
            if len(self._remembered) + len(new) > REMEMBERED_ORIGINS:
                self._remembered.clear()
            self._remembered.update(new)
            found.update(new)
        origins = [rows for rows in found.values() if rows is not None]
        return {name: np.stack([rows[name] for rows in origins]) for name in self._names}

    def _made(self, distinct: IntArray) -> Inputs:
        """Compute the rows of origins with increasing last times; rows that several origins share only once."""
        grid, length = self._grid, self._window_rows + self._horizon_steps
        positions, remainders = grid.split(distinct)
        span = int(positions[-1] - positions[0])
        if span + length < len(distinct) * length and (remainders == remainders[0]).all():
            first = distinct[:1]
            after = grid.after(first, self._horizon_steps + span)
            times = np.concatenate([grid.before(first, self._window_rows), after], axis=1)[0]
            rows = (positions - positions[0])[:, None] + np.arange(length)
            return {name: values[rows] for name, values in self._values(times).items()}
        before = grid.before(distinct, self._window_rows)
        return self._values(np.concatenate([before, grid.after(distinct, self._horizon_steps)], axis=1))

    def _values(self, times: IntArray) -> Inputs:
        made: dict[str, NDArray[Any]] = {}
        if PLACES in self._names:
            made[PLACES] = season_places(self._grid, times, self._seasons)
        if CLOCK in self._names:
            made[CLOCK] = clock_turns(self._grid, times).astype(np.float32)
        if SECONDS in self._names:
            made[SECONDS] = self._grid.clock(times)
        return made


@dataclass(frozen=True, slots=True, eq=False)
class DirectInputs:
    """Makes the named inputs of a direct model; a `flts.forecasting.rolling.PassInputs`."""

    recipe: FittedRecipe
    names: tuple[str, ...]
    """Inputs of the model."""
    seasons: tuple[int, ...]
    input_seq_len: int
    horizon_steps: int
    calendar: Calendar = field(init=False)

    def __post_init__(self) -> None:
        calendar = Calendar(self.recipe.grid, self.seasons, self.names, self.input_seq_len, self.horizon_steps)
        object.__setattr__(self, "calendar", calendar)

    @property
    def context_rows(self) -> int:
        """The window."""
        return self.input_seq_len

    @property
    def cells(self) -> int:
        """See `PassInputs`; with the numbers of the answer, of which a long horizon of many targets has more."""
        rows = self.input_seq_len + self.horizon_steps
        past = self.input_seq_len * len(self.recipe.columns) if PAST in self.names else 0
        places = rows * len(self.seasons) * _INT64_CELLS if PLACES in self.names else 0
        clock = rows * TURNS if CLOCK in self.names else 0
        future = rows * len(self.known_columns)
        seconds = rows * _INT64_CELLS if SECONDS in self.names else 0
        return past + places + clock + seconds + future + self.horizon_steps * len(self.recipe.varying_targets)

    @property
    def known_columns(self) -> IntArray:
        """See `PassInputs`."""
        return self.recipe.known_columns if FUTURE in self.names else np.empty(0, dtype=np.int64)

    def start(self, scaled: FloatArray, last_times: IntArray, ahead: FloatArray | None = None) -> DirectState:
        """See `PassInputs`."""
        past = np.ascontiguousarray(scaled[:, -self.input_seq_len :], dtype=np.float32)
        return DirectState(self, past, last_times, ahead)


class DirectState:
    """The past rows of a batch of origins, to which whole horizons of forecasts are appended.

    Appended forecasts are not clipped. Steps without a value that is known ahead have that of the last step that has.
    """

    __slots__ = ("_ahead", "_last_times", "_past", "_source")

    def __init__(
        self, source: DirectInputs, past: Float32Array, last_times: IntArray, ahead: FloatArray | None
    ) -> None:
        self._source = source
        self._past = past
        self._last_times = last_times
        self._ahead = None if ahead is None else ahead.astype(np.float32)

    def inputs(self) -> Inputs:
        """Return the model's next inputs."""
        inputs: dict[str, NDArray[Any]] = {PAST: self._past} if PAST in self._source.names else {}
        inputs |= self._source.calendar.at(self._last_times)
        if len(self._source.known_columns):
            past = self._past[..., self._source.known_columns]
            inputs[FUTURE] = np.concatenate([past, self._known(self._source.horizon_steps)], axis=1)
        return inputs

    def _known(self, steps: int) -> Float32Array:
        """Return the values that are known ahead at the next steps, (b, steps, q)."""
        assert self._ahead is not None
        return self._ahead[:, np.minimum(np.arange(steps), self._ahead.shape[1] - 1)]

    def append(self, predictions: NDArray[np.floating[Any]]) -> None:
        """Append forecasts (b, H, m), scaled varying targets, as the next H rows.

        Raises
        ------
        RejectedError
            ``horizon_too_long`` if the recipe has inputs that no model forecasts.
        """
        source = self._source
        recipe, window = source.recipe, source.input_seq_len
        steps = predictions.shape[1]
        if not can_continue(recipe, source.names):
            raise horizon_too_long(recipe, steps)
        rows = np.empty((len(self._past), steps, len(recipe.columns)), dtype=np.float32)
        rows[:] = recipe.scaled_constants
        rows[:, :, recipe.varying_columns] = predictions
        if len(source.known_columns):
            assert self._ahead is not None
            rows[:, :, source.known_columns] = self._known(steps)
            self._ahead = self._ahead[:, min(steps, self._ahead.shape[1] - 1) :]
        self._past = np.concatenate([self._past, rows], axis=1)[:, -window:].copy()
        self._last_times = recipe.grid.after(self._last_times, steps)[:, -1]


def can_continue(recipe: FittedRecipe, inputs: tuple[str, ...]) -> bool:
    """Return whether a direct model can forecast beyond its horizon: each of its rows is forecast or known ahead."""
    known = recipe.known_ahead if FUTURE in inputs else ()
    return PAST not in inputs or set(recipe.columns) <= {*recipe.targets, *recipe.constants, *known}
