"""The bench measures hand-made forecasts rightly, fails where a served model is worse, and keeps the page's text."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from flts.forecasting.series import FloatArray
from tests.bench_forecast import __main__ as bench
from tests.bench_forecast import product
from tests.bench_forecast.measures import Forecasts, Measures, Truth, measures
from tests.bench_forecast.report import (
    BEGIN,
    END,
    FLTS,
    SetReport,
    text_of,
    worse_than_baselines,
    write_between_markers,
)
from tests.bench_forecast.sets import SHIPPED, DataSet, Source, chosen, generated
from tests.in_process import CLOSED_FORM

TRUTH = Truth(
    actual=np.array([[10.0, 12, np.nan], [20, 22, 24]])[..., None],
    training_rows=np.array([0.0, 10, 4, 14])[:, None],  # one season of 2 rows earlier: a difference of 4
    segments=[slice(0, 4)],
    season=2,
    scale=np.array([2.0]),
    weights=(0.5, 0.3, 0.2),
    baselines=("PERSISTENCE",),
)


def shifted(by: float, **more: FloatArray) -> Forecasts:
    return Forecasts(np.nan_to_num(TRUTH.actual) + by, **more)


def test_mase_is_the_mean_error_in_units_of_the_seasonal_naive_error_of_the_training_rows() -> None:
    found = measures(TRUTH, {"PERSISTENCE": shifted(4), "other": shifted(-1)})

    assert found["PERSISTENCE"].mase == pytest.approx(1.0)
    assert found["other"].mase == pytest.approx(0.25)


def test_the_composite_is_in_units_of_the_best_baseline() -> None:
    found = measures(TRUTH, {"PERSISTENCE": shifted(4), "other": shifted(1)})

    # Scaled errors of 2 and 0.5 at every step: 0.5 * 2 + 0.3 * 2 + 0.2 * 4 and 0.5 * 0.5 + 0.3 * 0.5 + 0.2 * 0.25.
    assert found["PERSISTENCE"].composite == pytest.approx(1.0)
    assert found["other"].composite == pytest.approx(0.45 / 2.4)


def test_coverage_and_width_are_measured_by_block_of_steps() -> None:
    lower, upper = np.full((2, 3, 1), 11.0), np.full((2, 3, 1), 23.0)
    lower[:, 0] = 5

    found = measures(TRUTH, {"PERSISTENCE": shifted(4, lower=lower, upper=upper)})["PERSISTENCE"]

    assert found.coverage == pytest.approx(4 / 5)  # of 10, 12, 20, 22 and 24 only 24 is outside
    assert found.coverages == pytest.approx((1.0, 2 / 3))
    assert found.widths == pytest.approx((18 / 4, 12 / 4))


def test_a_contender_without_intervals_has_no_coverage() -> None:
    found = measures(TRUTH, {"PERSISTENCE": shifted(4)})["PERSISTENCE"]

    assert math.isnan(found.coverage)
    assert all(math.isnan(width) for width in found.widths)


@pytest.mark.parametrize("source", generated(), ids=lambda source: source.name)
def test_a_generated_set_is_the_same_for_the_same_seed_only(source: Source) -> None:
    first, again, other = source.make(1), source.make(1), source.make(2)

    assert (first.train, first.test) == (again.train, again.test)
    assert first.train != other.train


def report_of(composites: tuple[float, ...], name: str = "walk") -> SetReport:
    one = Measures(0.5, 1.0, 0.9, (1.0, 2.0), (0.9, 0.8), 3.0)
    return SetReport(
        name,
        rows=1_000,
        columns=1,
        blocks=TRUTH.blocks,
        origins=120,
        served=("LINEAR", "GRU", "LINEAR")[: len(composites)],
        measures={
            FLTS: tuple(dataclasses.replace(one, composite=composite) for composite in composites),
            "PERSISTENCE": (one,) * len(composites),
            "AutoETS": (dataclasses.replace(one, mase=0.25),) * len(composites),
        },
        baselines=("PERSISTENCE",),
        peers=("AutoETS",),
        errors={"MSTL": "ValueError: no season is seen twice."},
    )


@pytest.mark.parametrize(
    ("composites", "worse"), [((1.0, 1.06, 1.0), False), ((1.02, 1.03), True), ((math.nan, 1.0), True)]
)
def test_a_set_fails_if_the_served_model_is_more_than_two_percent_worse_over_the_seeds(
    composites: tuple[float, ...], worse: bool
) -> None:
    assert worse_than_baselines([report_of(composites)]) == (["walk"] if worse else [])


@pytest.mark.parametrize(("composite", "status"), [(1.0, 0), (1.1, 1)])
def test_the_exit_code_is_1_if_a_served_model_is_worse(
    composite: float, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "_measured", lambda *_, **__: report_of((composite,)))
    monkeypatch.setattr("sys.argv", ["bench", "--fast", "--sets", "walk"])

    assert bench.main() == status
    out, err = capsys.readouterr()
    assert "`make bench-forecast SETS=walk FAST=1`" in out
    assert ("more than 2 % worse than the best baseline: walk" in err) == bool(status)


def test_the_tables_have_a_row_for_each_contender_and_mark_the_best() -> None:
    text = text_of([report_of((1.0, 0.9, 0.8))], "Measured.")

    assert "| walk | 1..3 | LINEAR (2), GRU (1) | 0.50 | 0.50 | **0.25** | 0.900 | 0.90 | 3.0 |" in text
    assert "| FLTS: LINEAR (2), GRU (1) | 0.500 | 0.900 | 0.90 | 1.00 (0.90) | 2.00 (0.80) | 3.0 |" in text
    assert "### walk\n\n1,000 rows, 1 column; steps 1 to 3 from 120 origins." in text
    assert "MSTL has no forecasts: ValueError: no season is seen twice." in text


def test_only_the_part_between_the_markers_is_written(tmp_path: Path) -> None:
    page = tmp_path / "quality.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")

    write_between_markers(page, "new")

    assert page.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    page.write_text("no markers\n")
    with pytest.raises(ValueError, match="has no line"):
        write_between_markers(page, "new")


def test_files_of_the_caller_are_sets_with_their_options(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("time,a\n")
    (tmp_path / "rest.csv").write_text("time,a\n2024-01-01,1\n")
    options = 'file = "mine.csv"\ntest = "rest.csv"\nhorizon = 48\nseasons = [24, 168]\ntargets = ["a"]\nreach = 96\n'
    (tmp_path / "sets.toml").write_text(f"[both]\n{options}")

    plain, full = chosen(
        [str(tmp_path / "mine.csv"), str(tmp_path / "sets.toml")], shipped=lambda: pytest.fail("asked"), horizon=None
    )

    rest = b"time,a\n2024-01-01,1\n"
    assert plain.make(0) == DataSet("mine", b"time,a\n")
    assert full.make(0) == DataSet("both", b"time,a\n", rest, 48, (24, 168), ("a",), 96)
    [shorter] = chosen([str(tmp_path / "mine.csv")], shipped=lambda: tmp_path, horizon=7)
    assert shorter.make(0).horizon == 7
    with pytest.raises(SystemExit, match="nothing is neither a file nor one of hourly"):
        chosen(["nothing"], shipped=lambda: tmp_path, horizon=None)


def test_a_shipped_set_is_read_from_the_folder_of_the_peers(tmp_path: Path) -> None:
    (tmp_path / "nile.csv").write_text("time,volume\n")

    [nile] = chosen(["nile"], shipped=lambda: tmp_path, horizon=None)

    assert nile.make(0) == DataSet("nile", b"time,volume\n", horizon=SHIPPED["nile"]["horizon"])
    assert not nile.seeded


def test_every_model_of_a_run_answers_predict_from_the_same_test_rows(tmp_path: Path) -> None:
    data = next(source for source in generated() if source.name == "monthly").make(0)

    with patch("flts.bundle.proof.prove"):
        outcome = product.run(tmp_path, data, CLOSED_FORM, seed=0)

    origins = outcome.task.origins
    assert outcome.served in outcome.forecasts
    assert (outcome.task.train_rows, origins[0], origins[-1]) == (144, 144, 180 - 12)
    rows = np.array([float(line.split(b",")[1]) for line in data.train.splitlines()[1:]])
    np.testing.assert_allclose(outcome.task.series.values[:, 0], rows, rtol=1e-9)
    np.testing.assert_allclose(
        outcome.forecasts["PERSISTENCE"].mean, np.repeat(rows[origins - 1][:, None, None], 12, axis=1), rtol=1e-6
    )
    np.testing.assert_array_equal(outcome.truth.actual[0, :, 0], outcome.task.series.values[144:156, 0])
