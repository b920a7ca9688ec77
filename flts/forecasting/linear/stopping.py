"""The errors of all options on the stopping tail."""

from __future__ import annotations

import numpy as np

from flts.forecasting.linear.choice import OWN_COLUMNS, LinearChoice
from flts.forecasting.linear.fitting import Fitting
from flts.forecasting.linear.kinds import Base, Kind
from flts.forecasting.linear.model import spread
from flts.forecasting.linear.moments import Moments, added, written_inputs
from flts.forecasting.linear.ridge import OPTIONS, Ridges
from flts.forecasting.series import FloatArray, IntArray

STOP_ROWS = 128
"""Rows of the stopping tail that forecasts are compared from."""
STOP_ROWS_LEAST, STOP_ROWS_ALL = 16, 8_192
"""The same of each series if there are many: at least, and of all series together."""
NEAR_STEPS, NEAR_FACTOR = 12, 4
"""Blocks up to this step are compared on this multiple of rows."""
BLOCK_CELLS = 20
"""Known cells of a block that its error needs; a block with fewer is pooled with its neighbours."""
BATCH_ROWS = 2_048
"""Rows of several series that shared weights forecast at once."""
USUAL_OPTION = 2
"""Option without a stopping tail: returns to the mean, the middle strength."""


class StoppingTail:
    """Squared errors of all options on the stopping tail."""

    def __init__(self, fitting: Fitting, choice: LinearChoice) -> None:
        self.fitting, self.choice = fitting, choice
        table, origins = fitting.table, fitting.origins
        back = max(fitting.back(kind.base) for kind in choice.kinds)
        self.rows = []
        for target in choice.targets:
            found: IntArray = np.empty(0, dtype=np.int64)
            for strict in (True, False):
                observed = table.observed[:, target] if strict else None
                possible = origins.mask(observed, back=back, after=0, ahead=0, stop=choice.stop_stop - 1)
                if strict and any(kind.others for kind in choice.kinds):
                    everything, rows = fitting.everything, fitting.other_rows
                    possible &= origins.mask(everything, back=rows, after=0, ahead=0, stop=choice.stop_stop - 1)
                possible &= np.arange(len(table)) < origins.stops - 1
                found = np.flatnonzero(possible)
                found = found[np.searchsorted(found, choice.fit_stop - 1) :]
                if len(found) >= STOP_ROWS_LEAST:
                    break
            self.rows.append(found)
        # Blocks of near steps are compared on more rows, which cost little there.
        near = int(np.searchsorted(choice.edges, NEAR_STEPS, side="right")) - 1
        most = STOP_ROWS if table.columns <= OWN_COLUMNS else max(STOP_ROWS_LEAST, STOP_ROWS_ALL // len(choice.targets))
        blocks = len(choice.edges) - 1
        self.spans = [span for span in ((0, near, NEAR_FACTOR * most), (near, blocks, most)) if span[0] < span[1]]

    @property
    def has_rows(self) -> bool:
        """Whether a forecast of some target can begin in the tail."""
        return any(len(rows) for rows in self.rows)

    def errors(self) -> FloatArray:
        """Return mean squared errors, (k, K, options, B)."""
        choice, fitting = self.choice, self.fitting
        targets, blocks = len(choice.targets), len(choice.edges) - 1
        squares = np.empty((targets, len(choice.kinds), len(OPTIONS), blocks))
        cells = np.zeros((targets, blocks))
        together: dict[Base, list[Moments]] = {}
        for number, target in enumerate(choice.targets):
            for at, kind in enumerate(choice.kinds):
                if kind.shared:
                    continue
                moments = fitting.moments(kind, int(target))
                if not kind.others:
                    together[kind.base] = added(together.get(kind.base), moments)
                of_target = slice(number, number + 1)
                squares[of_target, at], cells[of_target] = self._errors(kind, of_target, fitting.ridges(moments))
        for at, kind in enumerate(choice.kinds):
            if kind.shared:
                ridges = fitting.ridges(together[kind.base] if together else fitting.shared_moments(kind))
                for batch in self._batches():
                    squares[batch, at], cells[batch] = self._errors(kind, batch, ridges)
        return _pooled(squares, cells)

    def _batches(self) -> list[slice]:
        """Return consecutive targets whose forecasts fit into one product."""
        most = max((span[2] for span in self.spans), default=1)
        size = max(1, BATCH_ROWS // most)
        return [slice(at, min(at + size, len(self.rows))) for at in range(0, len(self.rows), size)]

    def _errors(self, kind: Kind, numbers: slice, ridges: list[Ridges]) -> tuple[FloatArray, FloatArray]:
        """Return sums of squared errors of targets (t, options, B), and the numbers of their cells (t, B)."""
        sums, cells = zip(*(self._errors_of(kind, numbers, ridges, span) for span in self.spans), strict=True)
        return np.concatenate(sums, axis=2), np.concatenate(cells, axis=1)

    def _errors_of(
        self, kind: Kind, numbers: slice, ridges: list[Ridges], span: tuple[int, int, int]
    ) -> tuple[FloatArray, FloatArray]:
        """Return the same for a span of blocks (first, stop, most rows)."""
        first, stop, most = span
        fitting, choice, scaled = self.fitting, self.choice, self.fitting.scaled
        after, ahead = int(choice.edges[first]), int(choice.edges[stop])
        steps = np.arange(after + 1, ahead + 1)
        inputs, wanted, known, counts = [], [], [], []
        for number in range(numbers.start, numbers.stop):
            target, rows = int(choice.targets[number]), spread(self.rows[number], 0, most)
            reached = rows[:, None] + steps
            within = np.minimum(reached, len(fitting.table) - 1)
            seen = reached < np.minimum(fitting.origins.stops[rows], choice.stop_stop)[:, None]
            seasonal = scaled.known(kind.base, target, rows, steps, within)
            inputs.append(
                written_inputs(
                    scaled.rest(kind.base, target),
                    fitting.table.clock,
                    scaled.z,
                    rows,
                    window=fitting.window,
                    other_rows=fitting.other_rows if kind.others else 0,
                )
            )
            wanted.append((scaled.z[within, target] - seasonal).astype(np.float32))
            known.append(seen & fitting.table.observed[within, target])
            counts.append(len(rows))
        edges = choice.edges[first:stop] - after
        sums = np.zeros((len(counts), len(OPTIONS), stop - first))
        every_input, every_wanted = np.concatenate(inputs), np.concatenate(wanted)
        unknown = ~np.concatenate(known)
        stops = np.cumsum(counts)
        answers = [each.forecasts(every_input, part) for each, part in _parts(ridges, after, ahead)]
        for option, parts in enumerate(zip(*answers, strict=True)):
            forecast = np.concatenate(parts, axis=1)
            missing = len(steps) - forecast.shape[1]
            if missing:
                forecast = np.concatenate([forecast, np.repeat(forecast[:, -1:], missing, axis=1)], axis=1)
            squares = np.square(forecast - every_wanted)
            squares[unknown] = 0
            for at, (rows_stop, count) in enumerate(zip(stops, counts, strict=True)):
                of_steps = squares[rows_stop - count : rows_stop].sum(axis=0, dtype=np.float64)
                sums[at, option] = np.add.reduceat(of_steps, edges)
        cells = np.array([np.add.reduceat(each.sum(axis=0), edges) for each in known], dtype=np.float64)
        return sums, cells


def _parts(ridges: list[Ridges], after: int, ahead: int) -> list[tuple[Ridges, slice]]:
    """Return the regressions of the steps after ``after`` up to ``ahead``, at least one, each with its steps."""
    found, first = [], 0
    for each in ridges:
        stop = first + each.steps
        if first < ahead and after < stop:
            found.append((each, slice(max(after - first, 0), min(ahead, stop) - first)))
        first = stop
    return found or [(ridges[-1], slice(ridges[-1].steps - 1, None))]


def _pooled(squares: FloatArray, cells: FloatArray) -> FloatArray:
    """Return mean squared errors (k, K, options, B); a block with few cells is pooled with its neighbours."""
    blocks = squares.shape[3]
    found = np.empty_like(squares)
    for target in range(len(squares)):
        for block in range(blocks):
            width = 0
            while True:
                span = slice(max(block - width, 0), block + width + 1)
                count = cells[target, span].sum()
                if count >= BLOCK_CELLS or width >= blocks:
                    break
                width += 1
            found[target, :, :, block] = squares[target, :, :, span].sum(axis=2) / max(count, 1)
    if not cells.any():
        found[:], found[:, :, USUAL_OPTION] = 1.0, 0.5
    return found
