"""Fit LINEAR: choose on the stopping tail, then solve on as many rows as wanted.

For each target and each kind of seasonal value, that value is subtracted and one ridge regression per step forecasts
the rest. Anchors and strengths are weighted per block of steps by the error on the stopping tail. The kinds whose error
is near a block's best are averaged. Where the tail is shorter than a season, an earlier one is compared too.
`solve_linear` repeats the regressions on other rows with these choices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from flts.errors import RejectedError
from flts.forecasting.linear.assembly import Assembly
from flts.forecasting.linear.choice import MAX_BYTES, OWN_COLUMNS, LinearChoice, block_edges, decide
from flts.forecasting.linear.fitting import LEAST_ORIGINS, Fitting, unreported
from flts.forecasting.linear.kinds import Kind, kinds_of
from flts.forecasting.linear.model import LinearModel, path_residuals
from flts.forecasting.linear.stopping import StoppingTail
from flts.forecasting.linear.table import LinearTable, refuse
from flts.forecasting.series import FloatArray, IntArray

WINDOW_ROWS = 96
"""Most last rows of a target that are inputs."""
WINDOW_SHARE = 6
"""The window is at most the fit rows divided by this."""
RESIDUAL_ROWS = 256
"""Paths whose errors `tail_residuals` returns at most."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearFit:
    """A choice, and the model solved with it on all rows."""

    choice: LinearChoice
    model: LinearModel


def fit_linear(
    table: LinearTable, *, horizon: int, fit_stop: int, stop_stop: int, targets: tuple[int, ...] | None = None
) -> LinearFit:
    """Choose on the stopping tail and solve on all rows of the table.

    The same table gives the same bits, as long as numpy's BLAS uses the same number of threads.

    Parameters
    ----------
    table : LinearTable
        Training rows.
    horizon : int
        H, steps.
    fit_stop, stop_stop : int
        Rows before ``fit_stop`` are fitted to choose, rows from there to ``stop_stop`` are compared.
    targets : tuple of columns, optional
        Columns to forecast, by default all.

    Raises
    ------
    NoLinearError
        If too few rows follow each other without a gap.
    """
    choice = choose_linear(table, horizon=horizon, fit_stop=fit_stop, stop_stop=stop_stop, targets=targets)
    return LinearFit(choice, solve_linear(table, choice, stop=len(table)))


def choose_linear(
    table: LinearTable,
    *,
    horizon: int,
    fit_stop: int,
    stop_stop: int,
    targets: tuple[int, ...] | None = None,
    max_bytes: int = MAX_BYTES,
    alive: Callable[[], None] = unreported,
) -> LinearChoice:
    """Choose options and shares of kinds for each target and block of steps; parameters as in `fit_linear`.

    Parameters
    ----------
    max_bytes : int
        Kinds are left out, the worst first, and then far steps share weights, until the model's numbers need no more.
    alive : callable
        Called for each target and kind.

    Raises
    ------
    NoLinearError
        As `fit_linear`.
    """
    if horizon < 1 or not 0 < fit_stop <= stop_stop <= len(table):
        msg = f"{horizon} steps cannot be chosen on the rows {fit_stop} to {stop_stop} of {len(table)}"
        raise RejectedError(msg, code="bad_setting")
    columns = np.arange(table.columns) if targets is None else np.array(targets, dtype=np.int64)
    own = table.columns <= OWN_COLUMNS
    choice = LinearChoice(
        horizon=horizon,
        window=max(1, min(WINDOW_ROWS, fit_stop // WINDOW_SHARE)),
        fit_stop=fit_stop,
        stop_stop=stop_stop,
        targets=columns,
        kinds=kinds_of(
            table.seasons,
            fit_rows=fit_stop,
            others=own and table.columns > 1,
            own=own,
            shared=not own or len(columns) > 1,
        ),
        edges=block_edges(horizon),
        options=np.empty((0, 0, 0, 0)),
        mix=np.empty((0, 0, 0)),
    )
    fitting = Fitting(table, choice, fit_stop, alive)
    kinds = _fitted_kinds(fitting, choice)
    while not kinds and choice.window > 1:  # the segments are shorter than windows and steps
        choice = replace(choice, window=choice.window // 2)
        fitting = Fitting(table, choice, fit_stop, alive)
        kinds = _fitted_kinds(fitting, choice)
    if not kinds:
        _too_few(fit_stop, choice)
    tail = StoppingTail(fitting, replace(choice, kinds=kinds))
    if not tail.has_rows:  # a gap shortly before the tail: no window of a whole season ends in the tail
        kinds = tuple(kind for kind in kinds if kind.base.value != "lag") or kinds
        tail = StoppingTail(fitting, replace(choice, kinds=kinds))
    errors = tail.errors()
    earlier = _earlier_tail(table, tail.choice)
    if earlier is not None:
        errors = (errors + earlier.errors()) / 2
    return decide(tail.choice, table, errors, max_bytes)


def solve_linear(
    table: LinearTable, choice: LinearChoice, *, stop: int, alive: Callable[[], None] = unreported
) -> LinearModel:
    """Solve all regressions of a choice on the rows before ``stop``; ``alive`` is called for each target and kind.

    Raises
    ------
    NoLinearError
        If too few of these rows follow each other without a gap.
    """
    fitting = Fitting(table, choice, stop, alive)
    used = [at for at, kind in enumerate(choice.kinds) if choice.mix[:, at].any()]
    fitted = [at for at in used if fitting.steps_of(choice.kinds[at])]
    if not fitted:
        _too_few(stop, choice)
    if len(fitted) < len(used):
        mix = np.zeros_like(choice.mix)
        mix[:, fitted] = choice.mix[:, fitted]
        mix[:, fitted] += (mix.sum(axis=1, keepdims=True) == 0) / len(fitted)
        choice = replace(choice, mix=mix / mix.sum(axis=1, keepdims=True))
    return Assembly(fitting, choice).model()


def tail_residuals(
    table: LinearTable, choice: LinearChoice, *, most: int = RESIDUAL_ROWS
) -> tuple[IntArray, FloatArray]:
    """Return the errors on the stopping tail of the model solved on the fit rows only; result as `path_residuals`."""
    judged = solve_linear(table, choice, stop=choice.fit_stop)
    return path_residuals(judged, table, first=choice.fit_stop, stop=choice.stop_stop, most=most)


def _earlier_tail(table: LinearTable, choice: LinearChoice) -> StoppingTail | None:
    """Return a second stopping tail if the first is shorter than the longest season, else None.

    So short a tail shows one part of the season only, and its errors are those of a single fit. The second tail begins
    half a tail earlier, after a fit that ends there.
    """
    seasons = [table.seasons[kind.base.season] for kind in choice.kinds if kind.base.value != "none"]
    rows = choice.stop_stop - choice.fit_stop
    fit_stop = choice.fit_stop - rows // 2
    if rows >= max(seasons, default=0) or fit_stop < 1:
        return None
    earlier = replace(choice, fit_stop=fit_stop)
    fitting = Fitting(table, earlier, earlier.fit_stop)
    if _fitted_kinds(fitting, earlier) != choice.kinds:
        return None
    tail = StoppingTail(fitting, earlier)
    return tail if tail.has_rows else None


def _fitted_kinds(fitting: Fitting, choice: LinearChoice) -> tuple[Kind, ...]:
    return tuple(kind for kind in choice.kinds if fitting.steps_of(kind))


def _too_few(rows: int, choice: LinearChoice) -> NoReturn:
    needed = LEAST_ORIGINS + choice.window
    refuse(
        f"{rows:,} rows hold fewer than {LEAST_ORIGINS} windows of {choice.window} rows that a row follows; LINEAR is "
        f"fitted on at least {needed:,} rows in one piece"
    )
