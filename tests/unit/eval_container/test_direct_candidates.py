"""Eval scores direct bundles through the forecaster, with their intervals and limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eval_container.candidates import load_forecaster
from eval_container.contenders import contender_of
from eval_container.domain.scoring import HeldOut, Pass, measure_contender
from flts.bundle.forecaster import Forecaster
from flts.bundle.model import BundleModel
from flts.bundle.write import store_bundle
from flts.contracts.events import ModelSelected
from flts.forecasting.grid import FixedGrid
from tests.direct_models import direct_bundle, hourly_series, made_series
from tests.evaluated_runs import Installation, announced


def test_a_direct_candidate_is_scored_and_promoted(tmp_path: Path) -> None:
    flts = Installation(tmp_path)
    series = made_series(FixedGrid(3_600), 800, 24, 475_000, 2)
    run = flts.run(series)
    names = {"identifier": run.data.identifier, "config_hash": run.data.config_hash, "model_type": "GRU"}
    made = direct_bundle(series.rows(0, 600), length=24, **names)
    assert made[0].recipe == run.recipe
    claim = store_bundle(flts.store, flts.settings.bucket_model_bundles, *made)

    told = flts.send(run.data, announced(run, "GRU", bundle=claim), flts.trained(run, "LSTM", 0.5))

    [selected] = [event for event in told if isinstance(event, ModelSelected)]
    assert selected.decision == "promoted"
    rows = {row["model_type"]: row for row in flts.scoreboard(selected)["candidates"]}
    assert rows["GRU"]["status"] == "scored"
    assert rows["GRU"]["score"] < 0.5 * rows["LSTM"]["score"]
    assert load_forecaster(flts.store, claim).bundle.intervals is not None


def test_scores_and_coverage_are_those_of_its_forecasts_within_the_limits() -> None:
    series = hourly_series(400)
    limits = {"c0": (None, float(np.quantile(series.values[:, 0], 0.9)))}
    forecaster = Forecaster(BundleModel(*direct_bundle(series, limits=limits)))
    origins = forecaster.valid_origins(series, 100)[:200]
    held_out = HeldOut(
        values=series.values[:, ::-1],
        targets=("c1", "c0"),
        scale=np.ones(2),
        naive_error=np.ones(2),
        weights=(0.5, 0.3, 0.2),
        scored=Pass((12, 24), origins),
    )

    card = measure_contender(contender_of(forecaster, series, held_out.targets), held_out)

    forecasts = [forecaster.forecast(series.rows(0, origin), 24) for origin in origins.tolist()]
    for step in (12, 24):
        actual = series.values[origins + step - 1]
        mean = np.array([forecast.mean[step - 1] for forecast in forecasts])
        inside = np.array(
            [
                (forecast.lower[step - 1] <= truth) & (truth <= forecast.upper[step - 1])  # type: ignore[index]
                for forecast, truth in zip(forecasts, actual, strict=True)
            ]
        )
        for at, name in enumerate(("c0", "c1")):
            [row] = [row for row in card.table if (row["target"], row["step"]) == (name, step)]
            assert np.isclose(row["mae_raw"], np.abs(actual - mean)[:, at].mean(), rtol=1e-5)
            [row] = [row for row in card.coverage if (row["target"], row["step"]) == (name, step)]
            assert np.isclose(row["coverage"], inside[:, at].mean())
