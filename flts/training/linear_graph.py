"""LINEAR as the ONNX graph of a direct model (`flts.forecasting.direct`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flts.forecasting.direct import CLOCK, DIRECT_INPUTS, FUTURE, PAST, PLACES, SECONDS
from flts.forecasting.linear.calendar import Calendar
from flts.forecasting.linear.known import Effects
from flts.forecasting.linear.model import LinearModel, Part
from flts.training.holiday_graph import add_holidays
from flts.training.onnx_file import GraphBuilder


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """LINEAR, and the effects of the inputs known ahead that were taken out of its rows, if there are any."""

    model: LinearModel
    effects: Effects | None = None


def linear_inputs(solved: Solved) -> tuple[str, ...]:
    """Return the names of the inputs of a model's graph, of `flts.forecasting.direct.DIRECT_INPUTS`."""
    model, known = solved.model, None if solved.effects is None else solved.effects.known
    needed = {
        PAST: True,
        PLACES: any(part.profile is not None for part in model.parts),
        CLOCK: bool(model.clock),
        SECONDS: known is not None and known.holidays is not None,
        FUTURE: known is not None and len(known.columns) > 0,
    }
    return tuple(name for name in DIRECT_INPUTS if needed[name])


def add_linear(graph: GraphBuilder, solved: Solved, calendar: Calendar) -> str:
    """Add what `LinearModel.__call__` does, in float32, and return the name of the forecast (batch, H, k).

    Each seasonal value, the calendar and the rows of other columns are one MatMul each. ``past`` must have the L rows
    that the model requires; ``places`` and ``clock`` have L + H rows.

    Parameters
    ----------
    graph : GraphBuilder
    solved : Solved
    calendar : Calendar
        The one that made the model's ``clock`` features.
    """
    nodes = LinearNodes(graph, solved, calendar, rows=solved.model.rows_required)
    return nodes.with_effects(nodes.forecast())


class LinearNodes:
    """The nodes of LINEAR, for a graph that may have more.

    Parameters
    ----------
    graph, solved, calendar
        See `add_linear`.
    rows : int
        Rows L of ``past``, at least those that the model requires.
    """

    def __init__(self, graph: GraphBuilder, solved: Solved, calendar: Calendar, *, rows: int) -> None:
        self.graph = graph
        self.model = model = solved.model
        self.calendar = calendar
        self.rows = rows
        self.clock = self._first_step() if model.clock else ""
        self.shared_steps = not np.array_equal(model.step_weights, np.arange(model.horizon))
        self.known: str | None = None
        """Inputs known ahead of all rows, (batch, L + H, q)."""
        self.past = PAST
        """Rows less the effects of the inputs known ahead, (batch, L, m)."""
        self._of_steps: str | None = None
        if solved.effects is not None:
            self.known, effects = self._effects(solved.effects)
            self.past = graph.node("Sub", [PAST, self._rows_of(effects, np.arange(rows))])
            steps = self._rows_of(effects, rows + np.arange(model.horizon))
            self._of_steps = graph.node("Gather", [steps, graph.constant(model.targets)], axis=2)

    def with_effects(self, forecast: str) -> str:
        """Add the effects of the inputs known ahead to a forecast (batch, H, k)."""
        return forecast if self._of_steps is None else self.graph.node("Add", [forecast, self._of_steps])

    def forecast(self) -> str:
        """Return the forecast without these effects, (batch, H, k)."""
        model, graph = self.model, self.graph
        centred = graph.node("Sub", [self.past, graph.constant(model.mean)])
        z = graph.node("Div", [centred, graph.constant(model.scale)])
        own = graph.node("Gather", [z, graph.constant(model.targets)], axis=2)
        terms = [term for part in model.parts for term in self._part(part, own)]
        if model.clock_weights is not None:
            terms.append(self._to_steps(graph.node("MatMul", [self.clock, graph.constant(model.clock_weights)])))
        if model.other_weights is not None:
            last = self._rows_of(z, np.arange(self.rows - 1, self.rows - 1 - model.other_rows, -1))
            by_column = graph.node("Transpose", [last], perm=[0, 2, 1])
            flat = graph.node("Reshape", [by_column, graph.integers(-1, model.other_weights.shape[1])])
            terms.append(self._to_steps(graph.node("MatMul", [flat, graph.constant(model.other_weights)])))
        forecast = graph.constant(model.bias[:, None])
        for term in terms:
            forecast = graph.node("Add", [forecast, term])
        by_step = graph.node("Transpose", [forecast], perm=[1, 2, 0])
        scaled = graph.node("Mul", [by_step, graph.constant(model.scale[model.targets])])
        return graph.node("Add", [scaled, graph.constant(model.mean[model.targets])])

    def calendar_of(self, turns: str) -> str:
        """Return the features of ``clock`` rows, (batch, ..., c) of (batch, ..., 3), as `Calendar.__call__` does."""
        graph = self.graph
        waves = []
        for at, harmonics in enumerate(self.calendar.harmonics):
            turn = graph.node("Gather", [turns, graph.integers(at)], axis=-1)
            angles = [
                graph.node("Mul", [turn, graph.constant(np.array(2 * np.pi * number, dtype=np.float32))])
                for number in range(1, harmonics + 1)
            ]
            waves.append([graph.node(wave, [angle]) for angle in angles for wave in ("Sin", "Cos")])
        days, weeks, years = waves
        products = [graph.node("Mul", [one, other]) for one in days for other in weeks[:2]]
        return graph.node("Concat", [*days, *weeks, *years, *products], axis=-1)

    def _first_step(self) -> str:
        """Return the calendar of the first step, (batch, c)."""
        return self.calendar_of(self.graph.node("Gather", [CLOCK, self.graph.constant(np.array(self.rows))], axis=1))

    def _effects(self, effects: Effects) -> tuple[str, str]:
        """Return the inputs known ahead of all rows, and their effects in the measured columns, (batch, L + H, m)."""
        graph, known = self.graph, effects.known
        inputs = [FUTURE] if len(known.columns) else []
        if known.holidays is not None:
            inputs += add_holidays(graph, SECONDS, known.holidays, known.waves)
        joined = graph.node("Concat", inputs, axis=2)
        return joined, graph.node("MatMul", [joined, graph.constant(effects.weights.astype(np.float32))])

    def _part(self, part: Part, own: str) -> list[str]:
        """Return the terms of a seasonal value, each (k, batch, H)."""
        model, graph = self.model, self.graph
        lags = np.arange(self.rows - 1, self.rows - 1 - model.window, -1)
        rest, known = self._rows_of(own, lags), None
        if part.profile is not None:
            of_season = graph.node("Gather", [PLACES, graph.constant(np.array(part.base.season))], axis=2)
            used = np.concatenate([lags, np.arange(self.rows, self.rows + model.horizon)])
            place = graph.node("Min", [self._rows_of(of_season, used), graph.integers(len(part.profile) - 1)])
            profile = graph.node("Gather", [graph.constant(part.profile), place], axis=0)
            rest = graph.node("Sub", [rest, self._rows_of(profile, np.arange(model.window))])
            known = self._rows_of(profile, model.window + np.arange(model.horizon))
        elif part.season:
            rest = graph.node("Sub", [rest, self._rows_of(own, lags - part.season)])
            known = self._rows_of(own, self.rows - part.season + np.arange(model.horizon) % part.season)
        by_target = graph.node("Transpose", [rest], perm=[2, 0, 1])
        answer = self._to_steps(graph.node("MatMul", [by_target, graph.constant(part.weights)]))
        if part.bias is None and known is None:
            return [answer]
        share = graph.constant(part.share[:, None])
        if part.bias is not None:
            answer = graph.node("Add", [answer, graph.constant(part.bias)])
            if part.clock_weights is not None:
                clock = graph.node("MatMul", [self.clock, graph.constant(part.clock_weights)])
                answer = graph.node("Add", [answer, self._to_steps(clock)])
            answer = graph.node("Mul", [answer, share])
        if known is None:
            return [answer]
        return [answer, graph.node("Mul", [graph.node("Transpose", [known], perm=[2, 0, 1]), share])]

    def _rows_of(self, values: str, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> str:
        return self.graph.node("Gather", [values, self.graph.constant(rows.astype(np.int64))], axis=1)

    def _to_steps(self, buckets: str) -> str:
        """Return the forecasts of the steps from those of the weights that steps share, along the last axis."""
        if not self.shared_steps:
            return buckets
        return self.graph.node("Gather", [buckets, self.graph.constant(self.model.step_weights)], axis=-1)
