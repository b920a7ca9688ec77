"""Direct bundles as champions: batches of mixed horizons, nulls, limits, batch forecasts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flts.forecasting.series import Series
from inference_container.domain.batch_forecast import forecast_test_rows
from inference_container.domain.batching import Answer, Batcher
from inference_container.domain.champion import Champion
from tests.direct_models import direct_bundle, hourly_series, monthly_series, reference
from tests.made_series import with_values
from tests.serving import answer_of, body_of, champion_of

SERIES = hourly_series()


@pytest.fixture(scope="module")
def champion() -> Champion:
    return champion_of(direct_bundle(SERIES))


def in_loop(work: Callable[[Batcher], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        batcher = Batcher(max_waiting=1000, deadline_seconds=20)
        try:
            return await work(batcher)
        finally:
            batcher.close()

    return asyncio.run(main())


def counting_calls(champion: Champion, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    run = champion.forecaster.model.run

    def counted(inputs: Any) -> Any:
        sizes.append(len(inputs["past"]))
        return run(inputs)

    monkeypatch.setattr(champion.forecaster.model, "run", counted)
    return sizes


def test_requests_of_one_horizon_share_one_call_and_longer_ones_add_whole_horizons(
    champion: Champion, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [1, 24, 3, 60, 25, 24]
    known = [SERIES.rows(0, stop) for stop in (960, 960, 500, 700, 48, 959)]
    sizes = counting_calls(champion, monkeypatch)

    async def work(batcher: Batcher) -> list[Answer]:
        return await asyncio.gather(
            *(batcher.submit(champion, series, each) for series, each in zip(known, steps, strict=True))
        )

    answers = in_loop(work)

    assert sizes == [6, 2, 1]
    for series, each, answer in zip(known, steps, answers, strict=True):
        expected = champion.forecaster.forecast(series, each)
        np.testing.assert_allclose(answer.mean, expected.mean, rtol=1e-6)
        assert expected.lower is not None
        np.testing.assert_allclose(answer.lower, expected.lower, rtol=1e-6)
        assert answer.times.tolist() == expected.times.tolist()
        assert answer.mean.shape == (each, 2)


def test_long_windows_share_smaller_calls_and_none_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    made = direct_bundle(SERIES)
    row = 48 * 2 * 4 + 72 * 8 + 72 * 3 * 4 + 24 * 2 * 4
    monkeypatch.setattr("flts.bundle.tensors.BATCH_BYTES", 2 * row)
    champion = champion_of(made)
    assert champion.batch_rows == 2
    sizes = counting_calls(champion, monkeypatch)

    async def work(batcher: Batcher) -> list[Answer]:
        return await asyncio.gather(*(batcher.submit(champion, SERIES, steps) for steps in (1, 60, 2, 48, 3)))

    answers = in_loop(work)

    assert [len(answer.mean) for answer in answers] == [1, 60, 2, 48, 3]
    assert sum(sizes) == 3 + 3 + 2
    assert max(sizes) <= 3  # a rolling request is not left out of a call that short ones fill


def test_nulls_in_the_window_are_filled_and_counted(champion: Champion) -> None:
    values = SERIES.values.copy()
    values[-1, 0] = np.nan
    values[-48, 1] = np.nan
    filled = values.copy()
    filled[-1, 0] = values[-2, 0]
    filled[-48, 1] = values[-49, 1]

    async def work(batcher: Batcher) -> list[Answer]:
        both = (with_values(SERIES, values), SERIES)
        return await asyncio.gather(*(batcher.submit(champion, series, 2) for series in both))

    holed, whole = in_loop(work)

    assert (holed.imputed_cells, whole.imputed_cells) == (2, 0)
    expected = champion.forecaster.forecast(with_values(SERIES, filled), 2).mean
    np.testing.assert_allclose(holed.mean, expected, rtol=1e-6)


def test_an_answer_over_http_is_the_reference(tmp_path: Path) -> None:
    series = monthly_series()
    made = direct_bundle(series, season=12, length=24, horizon=12)

    answer = answer_of(made, body_of(series, slice(-24, None), inference_length=30), tmp_path)

    expected = reference(series, 30, season=12, length=24, horizon=12)
    rows = answer["predictions"]
    np.testing.assert_allclose([[row["c0"], row["c1"]] for row in rows], expected, rtol=1e-5)
    assert rows[0]["ts"] == "2013-05-01T00:00:00Z"
    assert answer["calibrated_steps"] == 12
    assert all(row["c0_lower"] < row["c0"] < row["c0_upper"] for row in rows)
    assert json.dumps(answer, allow_nan=False)


def test_forecasts_and_bounds_are_served_within_the_limits() -> None:
    limits = {"c0": (18.0, None), "c1": (None, 200.0)}
    champion = champion_of(direct_bundle(SERIES, limits=limits))

    answer = in_loop(lambda batcher: batcher.submit(champion, SERIES, 40))

    expected = champion.forecaster.forecast(SERIES, 40)
    bounded = answer.with_bounds()
    assert bounded[:, 0].min() == 18
    assert bounded[:, 1].max() == 200
    for at, each in enumerate((expected.mean, expected.lower, expected.upper)):
        np.testing.assert_allclose(bounded[..., at], each)


def test_models_shows_the_horizon_and_the_rows(champion: Champion) -> None:
    shown = champion.describe()

    names = ("input_kind", "horizon_steps", "max_horizon_steps", "calibrated_steps", "rows_required")
    assert {name: shown[name] for name in names} == {
        "input_kind": "direct",
        "horizon_steps": 24,
        "max_horizon_steps": 2016,
        "calibrated_steps": 24,
        "rows_required": 48,
    }


def test_test_rows_are_forecast_in_batch_within_the_limits() -> None:
    champion = champion_of(direct_bundle(SERIES, limits={"c0": (18.0, None)}))
    rows: Series = SERIES.rows(0, 200)

    batch = forecast_test_rows(champion, rows, context_rows=60, max_rows=1_000, long_steps=50)

    assert batch.long_steps == 50
    table = batch.table
    named = {name: table.values[:, at] for at, name in enumerate(table.columns)}
    assert len(table) == 140
    for origin in (60, 61, 199):
        expected = champion.forecaster.forecast(rows.rows(0, origin), 1)
        assert expected.lower is not None
        assert named["c1"][origin - 60] == pytest.approx(expected.mean[0, 1])
        assert named["c1_lower"][origin - 60] == pytest.approx(expected.lower[0, 1])
    long = champion.forecaster.forecast(rows.rows(0, 60), 50)
    np.testing.assert_allclose(named["c0_long"][:50], long.mean[:, 0])
    np.testing.assert_allclose(named["c0_long_lower"][:50], long.lower[:, 0])  # type: ignore[index]
    assert np.nanmin(named["c0_lower"]) == 18
