"""From a request's body to its answer: decode, find the champion, validate, forecast in a micro-batch, encode."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from prometheus_client import Histogram

from flts.errors import ConflictError, RejectedError, RetryableError
from flts.forecasting.series import Series
from flts.observability.metrics import Metrics
from flts.times.numbers import LAST_SECOND
from inference_container.champions import Champions
from inference_container.domain.answer import answer_body
from inference_container.domain.batching import Batcher
from inference_container.domain.champion import Champion
from inference_container.domain.future import read_future
from inference_container.domain.request import check_horizon, decode_request, read_rows
from inference_container.domain.requested_quantiles import check_levels
from inference_container.forecast_log import ForecastLog


class Predictor:
    """Answers ``POST /predict``; keeps no state of a request.

    Parameters
    ----------
    champions : Champions
    batcher : Batcher
    metrics : Metrics
    max_rows : int
        Most rows of one request.
    forecast_log : ForecastLog, optional
        Receives the served forecasts.
    clock : callable
        Returns the current time, epoch seconds.
    """

    def __init__(
        self,
        champions: Champions,
        batcher: Batcher,
        metrics: Metrics,
        *,
        max_rows: int,
        forecast_log: ForecastLog | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._champions = champions
        self._batcher = batcher
        self._metrics = metrics
        self._max_rows = max_rows
        self._forecast_log = forecast_log
        self._clock = clock
        self._latency: dict[str, Histogram] = {}
        self._loading: dict[str, asyncio.Future[Champion]] = {}

    async def predict(self, body: bytes) -> bytes:
        """Return the body of the answer.

        Raises
        ------
        RejectedError
            If the request is wrong; the message names the field.
        RetryableError
            ``no_champion``, ``champion_unavailable``, ``overloaded`` or ``deadline_exceeded``.
        """
        started = time.perf_counter()
        request = decode_request(body)
        identifier = self._champions.resolve(request.identifier)
        champion = self._champions.loaded(identifier) or await self._load(identifier)
        # The request uses this champion until it is answered, even if another champion is promoted meanwhile.
        if request.config_hash is not None and request.config_hash != champion.promotion.config_hash:
            msg = f"the champion of {identifier} has config_hash {champion.promotion.config_hash}"
            raise ConflictError(msg, code="champion_changed", field="config_hash")
        needs = champion.needs
        check_horizon(request, needs)
        levels = request.quantiles
        if levels:
            check_levels(levels, champion)
        rows = read_rows(request, needs, max_rows=self._max_rows, history=champion.history)
        if needs.grid.after(rows.times[-1:], request.inference_length)[0, -1] > LAST_SECOND:
            msg = "the forecast would end after the year 9999"
            raise RejectedError(msg, code="bad_horizon", field="inference_length")
        series = Series(rows.times, needs.value_columns, rows.values, needs.grid)
        future = read_future(request, needs, rows.times[-1:])
        answer = await self._batcher.submit(champion, series, request.inference_length, future)
        if request.inference_length > 1:  # comparing forecasts costs more than an answer of one step
            answer = replace(answer, widened=champion.widened_by(series))
        if rows.history_until is None:
            encoded = answer_body(answer, rows.style, levels=levels)
        else:
            until, now = rows.history_until, self._clock()
            encoded = answer_body(answer, rows.style, levels=levels, history_until=until, now=now)
        if self._forecast_log is not None:
            self._forecast_log.add(champion.promotion, encoded)
        self._observe(champion.bundle.model_type, time.perf_counter() - started)
        return encoded

    async def _load(self, identifier: str) -> Champion:
        """Load a champion from disk in a thread, once for all requests that wait for it."""
        loading = self._loading.get(identifier)
        if loading is None:
            loop = asyncio.get_running_loop()
            loading = self._loading[identifier] = loop.run_in_executor(None, self._champions.load, identifier)
            loading.add_done_callback(lambda _: self._loading.pop(identifier, None))
        try:
            return await asyncio.wait_for(asyncio.shield(loading), self._batcher.deadline_seconds)
        except TimeoutError:
            msg = f"the champion of {identifier} is being loaded"
            raise RetryableError(msg, code="champion_unavailable", field="identifier") from None

    def _observe(self, model_type: str, seconds: float) -> None:
        histogram = self._latency.get(model_type)
        if histogram is None:
            histogram = self._latency[model_type] = self._metrics.predict_latency.labels(model_type)
        histogram.observe(seconds)
