"""Cells that cannot be measurements count as missing; cells that can stay, however far they are."""

from __future__ import annotations

import numpy as np
import pytest

from flts.forecasting.series import FloatArray
from flts.ingest.implausible import limits_of, without_implausible
from flts.ingest.table import RawTable

RANDOM = np.random.default_rng(5)
LOAD = 50 + 8 * RANDOM.normal(size=400)


def found(cells: FloatArray) -> dict[int, float]:
    table = RawTable(60 * np.arange(len(cells)), ("load",), cells[:, None], "time")
    cleaned, _ = without_implausible(table, limits_of(table.values))
    lost = np.isnan(cleaned.values[:, 0]) & ~np.isnan(cells)
    return {int(at): float(cells[at]) for at in np.flatnonzero(lost)}


def changed(base: FloatArray, **cells: float) -> FloatArray:
    made = base.copy()
    for at, value in cells.items():
        made[int(at.removeprefix("at"))] = value
    return made


@pytest.mark.parametrize(
    ("cells", "implausible"),
    [
        (changed(LOAD, at7=1e6), {7: 1e6}),
        (changed(LOAD, at0=-1e9, at399=1e7), {0: -1e9, 399: 1e7}),
        (changed(LOAD, at3=-999.0, at90=-999.0, at91=-999.0), {3: -999.0, 90: -999.0, 91: -999.0}),
        (changed(LOAD, at3=-999.0, at90=-999.0, at200=1e8), {3: -999.0, 90: -999.0, 200: 1e8}),
    ],
)
def test_a_cell_that_cannot_be_measured_is_missing(cells: FloatArray, implausible: dict[int, float]) -> None:
    assert found(cells) == implausible


@pytest.mark.parametrize(
    "cells",
    [
        LOAD,
        changed(LOAD, at7=500.0),  # far away, and not a thousand times
        changed(LOAD, at7=-999.0),  # once is no code
        np.exp(np.linspace(0, 12, 400)),  # growth
        np.where(np.arange(400) % 50 == 0, 900.0, 0.0),  # rare demand
        np.where(np.arange(400) < 320, 0.0, 1.0),  # a late switch
        np.where(np.arange(400) % 2 == 0, 999.0, 990.0),  # a code among its like
        RANDOM.pareto(1.2, 400),
        np.full(400, -999.0),
        np.full(400, np.nan),
        np.array([1.0, 2.0, 1e9]),  # too few cells
    ],
)
def test_a_cell_that_can_be_measured_stays(cells: FloatArray) -> None:
    assert found(cells) == {}


def test_the_limits_of_the_training_rows_hold_for_the_test_rows() -> None:
    limits = limits_of(LOAD[:, None])
    test = RawTable(60 * np.arange(3), ("load",), np.array([[50.0], [1e6], [-999.0]]), "time")

    cleaned, cells = without_implausible(test, limits)

    assert np.isnan(cleaned.values[:, 0]).tolist() == [False, True, False]
    assert [(cell.column, cell.count, cell.value, cell.at) for cell in cells] == [
        ("load", 1, 1e6, "1970-01-01T00:01:00Z")
    ]
    assert test.values[1, 0] == 1e6
