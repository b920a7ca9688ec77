"""A champion whose point forecast is the median: requests, micro-batches and batch forecasts have the same numbers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from inference_container.domain.batch_forecast import forecast_test_rows
from inference_container.domain.batching import Answer, Batcher
from inference_container.domain.champion import Champion
from tests.made_bundles import made_bundle, skewed_series
from tests.serving import answer_of, body_of, champion_of

SERIES = skewed_series()
STEPS = (1, 30, 5, 12)


@pytest.fixture(scope="module", params=["LINEAR", "PERSISTENCE", "MEAN"])
def champion(request: pytest.FixtureRequest) -> Champion:
    return champion_of(made_bundle(request.param, point="median"))


def test_requests_that_share_model_calls_have_the_forecasts_of_single_ones(champion: Champion) -> None:
    async def ask() -> list[Answer]:
        batcher = Batcher(max_waiting=10, deadline_seconds=20)
        return await asyncio.gather(*(batcher.submit(champion, SERIES, steps) for steps in STEPS))

    for steps, answer in zip(STEPS, asyncio.run(ask()), strict=True):
        alone = champion.forecaster.forecast(SERIES, steps)
        assert alone.lower is not None
        assert alone.upper is not None
        served = answer.with_bounds()
        np.testing.assert_allclose(served[..., 0], alone.mean, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(served[..., 1], alone.lower, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(served[..., 2], alone.upper, rtol=1e-6, atol=1e-6)
        assert (served[..., 1] <= served[..., 0]).all()
        assert (served[..., 0] <= served[..., 2]).all()


def test_the_batch_forecast_of_test_rows_is_what_eval_scores(champion: Champion) -> None:
    batch = forecast_test_rows(champion, SERIES, context_rows=500, max_rows=1_000, long_steps=30)

    table = batch.table
    origins = np.flatnonzero(np.isfinite(table.values[:, table.columns.index("high")])) + 500
    scored = champion.forecaster.forecast_origins(SERIES, origins, 1)[:, 0]
    for at, name in enumerate(("high", "low")):
        np.testing.assert_array_equal(table.select((name,)).values[:, 0], scored[:, at])


def test_an_answer_names_the_median(tmp_path: Path) -> None:
    for point in ("mean", "median"):
        made = made_bundle("PERSISTENCE", point=point)
        answer = answer_of(made, body_of(SERIES), tmp_path / point)
        assert answer.get("point") == (None if point == "mean" else "median")
        row = answer["predictions"][0]
        assert row["high_lower"] <= row["high"] <= row["high_upper"]
