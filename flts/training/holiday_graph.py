"""The features of holidays as nodes of an ONNX graph, computed from times."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from flts.forecasting.grid import DAY
from flts.forecasting.holidays import HolidayTable
from flts.training.onnx_file import GraphBuilder


def add_holidays(graph: GraphBuilder, seconds: str, table: HolidayTable, waves: int = 0) -> list[str]:
    """Add what `HolidayTable.__call__` does, in float32; return the names of the results, (..., q) each.

    Parameters
    ----------
    graph : GraphBuilder
    seconds : str
        Name of the times (...) on the clock of the data set, int64 seconds since 1970-01-01.
    table : HolidayTable
    waves : int
        Harmonics of the day; the products of the features with each sine and cosine follow the features.
    """
    length = graph.constant(np.array(float(DAY)))
    # The operator Div of whole numbers rounds towards 0, so days before 1970 need Floor.
    turns = graph.node("Div", [graph.node("Cast", [seconds], to=TensorProto.DOUBLE), length])
    days = graph.node("Floor", [turns])
    since = graph.node("Sub", [days, graph.constant(np.array(float(table.first_day)))])
    within = graph.node("Max", [graph.node("Cast", [since], to=TensorProto.INT64), graph.integers(0)])
    within = graph.node("Min", [within, graph.integers(len(table.values) - 1)])
    features = graph.node("Gather", [graph.constant(table.values.astype(np.float32)), within], axis=0)
    found = [features]
    if waves:
        turn = graph.node("Cast", [graph.node("Sub", [turns, days])], to=TensorProto.FLOAT)
        turn = graph.node("Unsqueeze", [turn, graph.integers(-1)])
        for number in range(1, waves + 1):
            angle = graph.node("Mul", [turn, graph.constant(np.array(2 * np.pi * number, dtype=np.float32))])
            found += [graph.node("Mul", [features, graph.node(wave, [angle])]) for wave in ("Sin", "Cos")]
    return found
