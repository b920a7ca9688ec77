"""The values known ahead in a request, and champions that need them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flts.bundle.format import Bundle
from flts.errors import RejectedError
from flts.forecasting.file_form import FileForm
from flts.forecasting.grid import FixedGrid
from flts.forecasting.series import Series
from flts.times import TimeFormat
from inference_container.domain.batching import Answer, Batcher
from inference_container.domain.champion import Champion
from inference_container.domain.future import read_future
from inference_container.domain.request import Needs, decode_request
from tests.known_ahead import linear_bundle, sales
from tests.serving import answer_of, body_of, champion_of

NEEDS = Needs(
    columns=("sales", "price", "promotion"),
    ignored=frozenset({"note"}),
    reads_values=True,
    constants=(),
    rows_required=3,
    grid=FixedGrid(86_400),
    max_gap_steps=1,
    form=None,
    max_horizon_steps=100,
    bundle_limits_horizon=False,
    future_columns=("promotion", "price"),
)
LAST = np.array([19_723 * 86_400])  # 2024-01-01


def read(future: dict[str, Any], needs: Needs = NEEDS, steps: int = 2) -> Any:
    request = decode_request(json.dumps({"future": future, "inference_length": steps}).encode())
    values = read_future(request, needs, LAST)
    return None if values is None else values.tolist()


def test_lists_begin_with_the_first_step_and_may_be_longer() -> None:
    assert read({"price": [1.5, 2, 3, None], "promotion": [0, 1]}) == [[0, 1.5], [1, 2]]


def test_columns_that_the_champion_does_not_need_are_not_read() -> None:
    assert read({"price": [1, 2], "promotion": [0, 1], "sales": ["?"], "note": "x"}) == [[0, 1], [1, 2]]
    assert read({"promotion": ["?"]}, replace(NEEDS, future_columns=())) is None


def test_values_are_found_by_their_times() -> None:
    times = ["2024-01-03", "2023-12-31", "2024-01-02", "2024-01-09"]

    assert read({"time": times, "price": [3, 9, 2, 9], "promotion": [1, 0, 0, 0]}) == [[0, 2], [1, 3]]


def test_cells_and_times_may_be_written_as_in_the_files() -> None:
    form = FileForm("Tag", TimeFormat("DD.MM.YYYY", None), decimal=",", thousands=".", missing=())
    future = {"Tag": ["03.01.2024", "02.01.2024"], "price": ["1.234,5", "2,5"], "promotion": [0, 1]}

    assert read(future, replace(NEEDS, form=form)) == [[1, 2.5], [0, 1234.5]]


@pytest.mark.parametrize(
    ("future", "field", "message"),
    [
        ({}, "future.promotion", r"future.promotion: step 1 of 2 \(2024-01-02T00:00:00Z\) has no value"),
        ({"promotion": [0, 1]}, "future.price", "future.price: step 1 of 2 "),
        ({"promotion": [0], "price": [1, 2]}, "future.promotion", r"step 2 of 2 \(2024-01-03T"),
        ({"promotion": [0, None], "price": [1, 2]}, "future.promotion", r"step 2 of 2 \(2024-01-03T"),
        ({"time": ["2024-01-03"], "promotion": [0], "price": [1]}, "future.promotion", r"step 1 of 2 \(2024-01-02T"),
        ({"time": [], "promotion": [], "price": []}, "future.promotion", r"step 1 of 2 \(2024-01-02T"),
        ({"time": ["2024-01-02", "2024-01-03"], "promotion": [0], "price": [1, 2]}, "future.promotion", "step 2 of 2"),
        ({"promotions": [0, 1]}, "future.promotions", "future.promotions is no column of the data set"),
        ({"promotion": [0, "x"], "price": [1, 2]}, "future.promotion", "future.promotion: row 2"),
        ({"time": ["?"], "promotion": [0]}, "future.time", "row 1"),
        ({"promotion": 0, "price": [1, 2]}, "future.promotion", "a column is a list"),
    ],
)
def test_a_refusal_names_the_column_and_the_step(future: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(RejectedError, match=message) as refused:
        read(future)

    assert refused.value.field == field


SERIES = sales(700).select(("sales", "promotion"))


@pytest.fixture(scope="module")
def made() -> tuple[Bundle, bytes]:
    return linear_bundle(SERIES.rows(0, 600), targets=("sales",), future_columns=("promotion",))


@pytest.fixture(scope="module")
def champion(made: tuple[Bundle, bytes]) -> Champion:
    return champion_of(made)


def test_a_champion_says_which_values_it_needs(champion: Champion) -> None:
    assert champion.describe()["future_columns"] == ["promotion"]


def test_requests_of_several_horizons_share_calls_and_keep_their_own_values(champion: Champion) -> None:
    wanted = [(600, 1), (600, 14), (610, 3), (620, 30), (599, 14)]
    ahead = [SERIES.values[row : row + steps, [1]] for row, steps in wanted]

    async def work() -> list[Answer]:
        batcher = Batcher(max_waiting=100, deadline_seconds=20)
        try:
            return await asyncio.gather(
                *(
                    batcher.submit(champion, SERIES.rows(0, row), steps, values)
                    for (row, steps), values in zip(wanted, ahead, strict=True)
                )
            )
        finally:
            batcher.close()

    answers = asyncio.run(work())

    for (row, steps), values, answer in zip(wanted, ahead, answers, strict=True):
        expected = champion.forecaster.forecast(SERIES.rows(0, row), steps, values)
        np.testing.assert_allclose(answer.mean, expected.mean, rtol=1e-6)


def test_a_request_is_answered_or_refused_by_its_values(made: tuple[Bundle, bytes], tmp_path: Path) -> None:
    body = json.loads(body_of(SERIES, slice(500, 600), inference_length=3))

    answered = answer_of(made, json.dumps(body | {"future": {"promotion": [0, 1, 0]}}).encode(), tmp_path)

    values = [row["sales"] for row in answered["predictions"]]
    assert values[1] > max(values[0], values[2]) + 2
    with pytest.raises(RejectedError, match=r"future\.promotion: step 1 of 3 \(.*Z\) has no value") as refused:
        answer_of(made, json.dumps(body).encode(), tmp_path)
    assert refused.value.code == "missing_future"


def test_a_batch_of_requests_that_cannot_be_used_is_refused_by_their_rows() -> None:
    roles = {"targets": ("sales",), "future_columns": ("promotion",), "handle_nans": False}
    champion = champion_of(linear_bundle(SERIES.rows(0, 600), **roles))
    values = SERIES.values[:600].copy()
    values[-1, 0] = np.nan
    holey = Series(SERIES.times[:600], SERIES.columns, values, SERIES.grid)

    async def work() -> Answer:
        batcher = Batcher(max_waiting=100, deadline_seconds=20)
        try:
            return await batcher.submit(champion, holey, 3, SERIES.values[600:603, [1]])
        finally:
            batcher.close()

    with pytest.raises(RejectedError) as refused:
        asyncio.run(work())
    assert (refused.value.code, refused.value.field) == ("missing_values", "sales")
