from __future__ import annotations

import numpy as np
import pytest

from flts.forecasting.linear.choice import LinearChoice, block_edges
from flts.forecasting.linear.fitting import Fitting
from flts.forecasting.linear.kinds import Base, Kind
from flts.forecasting.linear.moments import fast_length, written_inputs
from flts.forecasting.linear.table import LinearTable

ROWS, STEPS, WINDOW = 400, 20, 16
KINDS = [
    Kind(Base("none")),
    Kind(Base("none"), others=True),
    Kind(Base("profile", 1)),
    Kind(Base("profile", 1), others=True),
    Kind(Base("lag", 0)),
    Kind(Base("lag", 1)),
]


def random_table() -> LinearTable:
    rng = np.random.default_rng(0)
    rows = np.arange(ROWS)
    observed = np.ones((ROWS, 3), dtype=bool)
    observed[100:102, 1] = observed[50, 0] = False
    return LinearTable(
        rng.normal(size=(ROWS, 3)).cumsum(axis=0) * 0.1 + rng.normal(size=(ROWS, 3)),
        observed,
        [slice(0, 180), slice(190, ROWS)],
        (7, 24),
        np.stack([rows % 7, rows % 24], axis=1),
        rng.normal(size=(ROWS, 4)),
    )


def fitting(table: LinearTable) -> Fitting:
    nothing = np.empty((0, 0, 0))
    choice = LinearChoice(STEPS, WINDOW, 300, 340, np.arange(3), (), block_edges(STEPS), nothing[..., None], nothing)
    return Fitting(table, choice, 300)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("target", [0, 1, 2])
def test_sums_by_correlations_are_those_of_the_written_matrices(kind: Kind, target: int) -> None:
    fit = fitting(random_table())
    for (after, ahead), found in zip(fit.groups(kind), fit.moments(kind, target), strict=True):
        mask, _ = fit.rows(kind, target, after, ahead)
        rows, steps = np.flatnonzero(mask), np.arange(after + 1, ahead + 1)
        rest = fit.scaled.rest(kind.base, target)
        others = fit.other_rows if kind.others else 0
        x = written_inputs(rest, fit.table.clock, fit.scaled.z, rows, window=WINDOW, other_rows=others)
        t = fit.scaled.z[rows[:, None] + steps, target] - fit.scaled.known(kind.base, target, rows, steps)

        assert found.count == len(rows) > 100
        np.testing.assert_allclose(found.gram, x.T @ x, atol=1e-9)
        np.testing.assert_allclose(found.cross, x.T @ t, atol=1e-9)
        np.testing.assert_allclose(found.x_sum, x.sum(axis=0), atol=1e-9)
        np.testing.assert_allclose(found.t_sum, t.sum(axis=0), atol=1e-9)


def test_no_window_or_step_of_a_fitted_row_is_imputed_or_in_another_segment() -> None:
    fit = fitting(random_table())
    mask, strict = fit.rows(Kind(Base("lag", 0)), 1, 0, STEPS)

    assert strict
    for row in np.flatnonzero(mask):
        window = np.arange(row - WINDOW - 7 + 1, row + STEPS + 1)
        assert fit.table.observed[window, 1].all()
        assert window[-1] < 300
        assert (window[0] >= 190) or (window[0] >= 0 and window[-1] < 180)


def test_a_group_of_steps_is_halved_where_imputed_cells_cost_it_too_many_rows() -> None:
    table = random_table()
    table.observed[30::60] = False  # a window of 16 rows fits between them, one with 40 steps fits only just

    groups = fitting(table).groups(Kind(Base("none")))

    assert len(groups) > 1
    assert [ahead for _, ahead in groups][:-1] == [after for after, _ in groups][1:]
    assert (groups[0][0], groups[-1][1]) == (0, STEPS)


def test_lengths_of_transforms_are_the_next_ones_of_small_factors() -> None:
    assert [fast_length(least) for least in (1, 7, 11, 17, 1_025, 4_097)] == [1, 8, 12, 18, 1_080, 4_320]
