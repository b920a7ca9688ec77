from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from flts.bundle.format import Bundle
from flts.errors import RejectedError, RetryableError
from flts.forecasting.grid import FixedGrid
from flts.forecasting.recipe import RecipeSpec, scaled_rows, transform, unscale_targets
from flts.forecasting.series import FloatArray, Series
from inference_container.domain.answer import answer_body
from inference_container.domain.batching import CLOCK_POINTS, Answer, Batcher
from inference_container.domain.champion import FULL_BATCH, Champion
from inference_container.domain.times import INTEGER_STYLE
from tests.made_series import with_values
from tests.serving import champion_of, clock_bundle, small_series, window_bundle

SERIES = small_series()


@pytest.fixture(scope="module")
def champion() -> Champion:
    return champion_of(window_bundle(SERIES))


def in_loop(work: Callable[[Batcher], Awaitable[Any]], *, max_waiting: int = 1000, deadline: float = 20) -> Any:
    async def main() -> Any:
        batcher = Batcher(max_waiting=max_waiting, deadline_seconds=deadline)
        try:
            return await work(batcher)
        finally:
            assert batcher.waiting == 0 or max_waiting < 1000
            batcher.close()

    return asyncio.run(main())


def window_at(row: int, *, rows: int = 10) -> Series:
    return SERIES.rows(row - rows, row)


def counting_calls(champion: Champion, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that collects the sizes of all later model calls."""
    sizes: list[int] = []
    model = champion.forecaster.model
    run = model.run

    def counted(inputs: Any) -> Any:
        sizes.append(len(inputs["window"]))
        return run(inputs)

    monkeypatch.setattr(model, "run", counted)
    return sizes


def test_all_waiting_requests_share_one_model_call_and_get_their_own_answers(
    champion: Champion, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = range(20, 20 + FULL_BATCH)
    alone = [champion.forecaster.forecast(window_at(row), 1) for row in rows]
    sizes = counting_calls(champion, monkeypatch)

    async def work(batcher: Batcher) -> list[Answer]:
        return await asyncio.gather(*(batcher.submit(champion, window_at(row), 1) for row in rows))

    answers = in_loop(work)

    assert sizes == [FULL_BATCH]
    for expected, answer in zip(alone, answers, strict=True):
        np.testing.assert_allclose(answer.mean, expected.mean, rtol=1e-6)
        assert expected.lower is not None
        assert expected.upper is not None
        np.testing.assert_allclose(answer.lower, expected.lower, rtol=1e-6)
        np.testing.assert_allclose(answer.upper, expected.upper, rtol=1e-6)
        assert answer.times.tolist() == expected.times.tolist()


@pytest.mark.parametrize("output_seq_len", [1, 7])
@pytest.mark.parametrize("lags", [False, True])
def test_a_rolled_horizon_of_60_equals_the_plain_loop(output_seq_len: int, lags: bool) -> None:
    spec = RecipeSpec(lags_enable=lags, lags_n=2, lags_step=3)
    champion = champion_of(window_bundle(SERIES, spec=spec, output_seq_len=output_seq_len))
    recipe, rows = champion.bundle.recipe, champion.needs.rows_required
    known = SERIES.rows(100, 100 + rows)

    answer = in_loop(lambda batcher: batcher.submit(champion, known, 60))

    # The loop computes the expected forecast: each pass computes the features of all rows again, runs the model, and
    # appends rows in raw units.
    series, means = known, list[FloatArray]()
    while sum(len(mean) for mean in means) < 60:
        window = transform(recipe, series).values[-10:].astype(np.float32)
        raw = unscale_targets(recipe, champion.forecaster.model.run_windows(window[None])[0])
        means.append(raw)
        times = series.times[-1] + series.grid.step_seconds * np.arange(1, len(raw) + 1)
        series = Series(
            np.concatenate([series.times, times]), series.columns, np.concatenate([series.values, raw]), FixedGrid(120)
        )
    np.testing.assert_allclose(answer.mean, np.concatenate(means)[:60], rtol=1e-5)
    assert np.diff(answer.times).tolist() == [120] * 59


def test_a_long_horizon_does_not_hold_up_a_short_one(champion: Champion, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = counting_calls(champion, monkeypatch)

    async def work(batcher: Batcher) -> tuple[int, Answer]:
        long = batcher.submit(champion, window_at(50), 2000)
        while len(sizes) < 20:  # noqa: ASYNC110 - waits for model calls, not for time
            await asyncio.sleep(0)
        before = len(sizes)
        await batcher.submit(champion, window_at(60), 1)
        return len(sizes) - before, await long

    passes, answer = in_loop(work)

    assert passes <= 3
    assert len(answer.times) == 2000


def test_short_requests_do_not_starve_a_long_one(champion: Champion) -> None:
    async def work(batcher: Batcher) -> bool:
        long = batcher.submit(champion, window_at(50), 40)
        for _ in range(60):
            await asyncio.gather(*(batcher.submit(champion, window_at(60), 1) for _ in range(FULL_BATCH)))
        return long.done()

    assert in_loop(work)


def test_two_champions_never_mix_while_they_are_swapped_under_load() -> None:
    old, new = (champion_of(window_bundle(SERIES, seed=seed)) for seed in (1, 2))
    expected = {
        (champion, row, steps): champion.forecaster.forecast(window_at(row), steps).mean
        for champion in (old, new)
        for row in (30, 40)
        for steps in (1, 25)
    }

    async def work(batcher: Batcher) -> None:
        serving = [old]

        async def client(number: int) -> None:
            row, steps = (30, 40)[number % 2], (1, 25)[number // 2 % 2]
            for _ in range(20):
                champion = serving[0]
                answer = await batcher.submit(champion, window_at(row), steps)
                assert answer.champion is champion
                np.testing.assert_allclose(answer.mean, expected[champion, row, steps], rtol=1e-5)

        async def swap() -> None:
            for turn in range(200):
                serving[0] = (old, new)[turn % 2]
                await asyncio.sleep(0)

        await asyncio.gather(swap(), *(client(number) for number in range(40)))

    in_loop(work)


def test_extra_rows_before_a_window_without_nulls_change_nothing(champion: Champion) -> None:
    async def work(batcher: Batcher) -> list[Answer]:
        return await asyncio.gather(
            *(batcher.submit(champion, window_at(200, rows=rows), steps) for steps in (1, 5) for rows in (10, 11, 150))
        )

    for three in np.array_split(in_loop(work), 2):
        assert all(np.array_equal(three[0].mean, other.mean) for other in three[1:])


def test_nulls_are_filled_from_the_rows_before_them_alone_and_counted(champion: Champion) -> None:
    values = window_at(200, rows=30).values.copy()
    values[-2:, 1] = np.nan
    holed = with_values(window_at(200, rows=30), values)
    filled = values.copy()
    filled[-2:, 1] = values[-3, 1]

    async def work(batcher: Batcher) -> list[Answer]:
        # All three requests share one batch, which must not mix up their rows.
        return await asyncio.gather(
            *(batcher.submit(champion, series, 1) for series in (window_at(90), holed, with_values(holed, filled)))
        )

    _, answer, plain = in_loop(work)
    assert (answer.imputed_cells, plain.imputed_cells) == (2, 0)
    np.testing.assert_array_equal(answer.mean, plain.mean)


def test_a_recipe_that_fills_nothing_refuses_nulls_alone() -> None:
    champion = champion_of(window_bundle(SERIES, spec=RecipeSpec(handle_nans=False)))
    values = window_at(90).values.copy()
    values[4, 0] = np.nan

    async def work(batcher: Batcher) -> list[Any]:
        rows = (with_values(window_at(90), values), window_at(90))
        return await asyncio.gather(
            *(batcher.submit(champion, series, steps) for series in rows for steps in (1, 3)), return_exceptions=True
        )

    *refused, one, three = in_loop(work)
    assert all(isinstance(error, RejectedError) and error.field == "down" for error in refused)
    assert (len(one.times), len(three.times)) == (1, 3)


def test_values_far_from_training_are_refused_and_hurt_no_neighbour(champion: Champion) -> None:
    values = window_at(90).values.copy()
    values[3, 0] = 1e300

    async def work(batcher: Batcher) -> list[Any]:
        rows = (with_values(window_at(90), values), window_at(90))
        return await asyncio.gather(
            *(batcher.submit(champion, series, steps) for series in rows for steps in (1, 3)), return_exceptions=True
        )

    *wild, one, three = in_loop(work)
    # Each wild request is refused, or its answer is finite, because tanh bounds this model. NaN and any other error
    # fail the test.
    for outcome in wild:
        assert isinstance(outcome, RejectedError) or np.isfinite(outcome.mean).all()
    np.testing.assert_array_equal(one.mean[0], three.mean[0])
    np.testing.assert_allclose(one.mean, champion.forecaster.forecast(window_at(90), 1).mean, rtol=1e-6)


def test_requests_to_a_model_of_the_clock_share_calls_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    champion = champion_of(clock_bundle(SERIES))
    sizes: list[int] = []
    run = champion.forecaster.model.run_timestamps

    def counted(seconds: Any) -> Any:
        sizes.append(len(seconds))
        return run(seconds)

    monkeypatch.setattr(champion.forecaster.model, "run_timestamps", counted)

    async def work(batcher: Batcher) -> list[Answer]:
        steps = [1, 2016, 5, 2016, 2016, 3]
        return await asyncio.gather(*(batcher.submit(champion, window_at(50), horizon) for horizon in steps))

    answers = in_loop(work)

    assert sum(sizes) == 6057
    assert max(sizes) <= CLOCK_POINTS
    for answer in answers:
        expected = champion.forecaster.forecast(window_at(50), len(answer.times))
        np.testing.assert_allclose(answer.mean, expected.mean, rtol=1e-12)
        assert expected.upper is not None
        np.testing.assert_allclose(answer.upper, expected.upper, rtol=1e-12)


def test_a_model_too_slow_for_the_event_loop_runs_beside_it(champion: Champion) -> None:
    slow = Champion(
        **{name: getattr(champion, name) for name in Champion.__dataclass_fields__ if name != "inline"}, inline=False
    )

    async def work(batcher: Batcher) -> list[Answer]:
        return await asyncio.gather(*(batcher.submit(slow, window_at(70), steps) for steps in (1, 12, 1)))

    one, twelve, _ = in_loop(work)
    np.testing.assert_allclose(twelve.mean, champion.forecaster.forecast(window_at(70), 12).mean, rtol=1e-6)
    np.testing.assert_allclose(one.mean[0], twelve.mean[0], rtol=1e-6)


def test_more_requests_than_the_queue_holds_are_told_to_come_again(champion: Champion) -> None:
    async def work(batcher: Batcher) -> list[Any]:
        first = [batcher.submit(champion, window_at(50), 1) for _ in range(4)]
        with pytest.raises(RetryableError) as caught:
            batcher.submit(champion, window_at(50), 1)
        assert caught.value.code == "overloaded"
        answers = await asyncio.gather(*first)
        await batcher.submit(champion, window_at(50), 1)  # the queue has room again
        return answers

    assert len(in_loop(work, max_waiting=4)) == 4


def test_a_request_that_cannot_meet_its_deadline_is_told_so_in_time(champion: Champion) -> None:
    async def work(batcher: Batcher) -> Any:
        with pytest.raises(RetryableError) as caught:
            await batcher.submit(champion, window_at(50), 100_000)
        return caught.value.code

    assert in_loop(work, deadline=0.05) == "deadline_exceeded"


def test_the_work_of_clients_that_left_is_dropped(champion: Champion, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = counting_calls(champion, monkeypatch)

    async def work(batcher: Batcher) -> None:
        long = batcher.submit(champion, window_at(50), 2000)
        while len(sizes) < 5:  # noqa: ASYNC110 - waits for model calls, not for time
            await asyncio.sleep(0)
        long.cancel()
        await batcher.submit(champion, window_at(50), 1)

    in_loop(work)
    assert len(sizes) < 20


def test_an_error_of_the_model_reaches_the_requests_that_met_it_and_no_others(
    champion: Champion, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = champion.forecaster.model.run
    broken = [True]

    def sometimes(inputs: Any) -> Any:
        if broken[0]:
            broken[0] = False
            msg = "out of memory"
            raise OSError(msg)
        return run(inputs)

    monkeypatch.setattr(champion.forecaster.model, "run", sometimes)

    async def work(batcher: Batcher) -> Answer:
        with pytest.raises(OSError, match="out of memory"):
            await batcher.submit(champion, window_at(50), 3)
        return await batcher.submit(champion, window_at(50), 3)

    assert len(in_loop(work).times) == 3


def test_stacked_rows_are_scaled_as_each_alone(champion: Champion) -> None:
    recipe = champion.bundle.recipe
    one, two = window_at(60), window_at(300)
    stacked = Series(
        np.concatenate([one.times, two.times]), one.columns, np.concatenate([one.values, two.values]), FixedGrid(120)
    )

    together = scaled_rows(recipe, stacked)[0]

    np.testing.assert_array_equal(together[:10], scaled_rows(recipe, one)[0])
    np.testing.assert_array_equal(together[10:], scaled_rows(recipe, two)[0])


def with_constants(*names: str) -> Series:
    values = np.copy(SERIES.values)
    for name in names:
        values[:, SERIES.columns.index(name)] = 7.5
    return with_values(SERIES, values)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_constant_target_answers_its_constant_beside_the_others(steps: int) -> None:
    champion = champion_of(window_bundle(with_constants("up")))
    window = with_constants("up").rows(70, 80)

    answer = in_loop(lambda batcher: batcher.submit(champion, window, steps))

    expected = champion.forecaster.forecast(window, steps)
    assert expected.lower is not None
    assert answer.mean[:, 1].tolist() == answer.lower[:, 1].tolist() == [7.5] * steps
    np.testing.assert_allclose(answer.mean, expected.mean, rtol=1e-6)
    np.testing.assert_allclose(answer.lower, expected.lower, rtol=1e-6)


def test_a_data_set_of_only_constants_is_served() -> None:
    champion = champion_of(clock_bundle(with_constants(*SERIES.columns)))

    window = with_constants(*SERIES.columns).rows(70, 80)

    answer = in_loop(lambda batcher: batcher.submit(champion, window, 3))

    assert champion.describe()["reason"] == "all_constant"
    assert answer.mean.tolist() == answer.upper.tolist() == [[7.5] * 3] * 3


@pytest.mark.parametrize("bundle", [window_bundle, clock_bundle])
@pytest.mark.parametrize(("last", "answered"), [(9.0, [9.0, 7.5, 9.0]), (2.0, [2.0, 2.0, 7.5])])
def test_a_constant_that_varies_now_is_held_at_its_last_value_within_both(
    bundle: Callable[[Series], tuple[Bundle, bytes]], last: float, answered: list[float]
) -> None:
    champion = champion_of(bundle(with_constants("up")))
    rows = with_constants("up").rows(70, 80)
    values = rows.values.copy()
    values[5:, 1] = last
    values[-1, 1] = np.nan  # the last value counts, not the last row
    series = with_values(rows, values).select(champion.needs.value_columns)

    answer = in_loop(lambda batcher: batcher.submit(champion, series, 2))

    assert [held.name for held in answer.held] == ["up"]
    assert answer.with_bounds()[:, 1].tolist() == [answered] * 2
    assert json.loads(answer_body(answer, INTEGER_STYLE))["held_targets"] == ["up"]
