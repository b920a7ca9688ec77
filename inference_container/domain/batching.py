"""Micro-batches: all requests that wait for a champion share one model call per turn of the event loop.

A request with a long horizon makes one pass per turn together with the other requests, so it does not delay a short
one. Each champion has a lane, which a request enters on admission. After a swap the requests in the old lane finish
with the old champion.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flts.errors import RejectedError, RetryableError
from flts.forecasting.grid import Grid
from flts.forecasting.intervals import Intervals
from flts.forecasting.rolling import Inputs, PassInputs
from flts.forecasting.series import Series
from inference_container.domain.champion import Champion, Held, interval_offsets
from inference_container.domain.stacking import stack_inputs

if TYPE_CHECKING:
    from flts.bundle.forecaster import Passes

FloatArray = NDArray[np.float64]

# Requests of a batch that are reserved for horizons beyond the model's own, at most a quarter; short requests cannot
# displace them.
ROLLING_SHARE = 16
CLOCK_POINTS = 4096  # most forecast times in one call of a model whose only input is the time
# Threads for model calls that would block the event loop too long. ONNX Runtime releases the GIL during a call.
SLOW_THREADS = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """A forecast in raw units, made by exactly one champion."""

    champion: Champion
    times: NDArray[np.int64]
    """(h,)"""
    mean: FloatArray
    """(h, M)"""
    imputed_cells: int
    held: tuple[Held, ...] = ()
    widened: Intervals | None = None
    """The intervals of this request, if its rows contain matured forecasts; else the champion's are used."""

    @property
    def lower(self) -> FloatArray:
        """(h, M) lower bounds, NaN where there were too few residuals."""
        return self.with_bounds()[..., 1]

    @property
    def upper(self) -> FloatArray:
        """(h, M) upper bounds, NaN where there were too few residuals."""
        return self.with_bounds()[..., 2]

    def with_bounds(self) -> FloatArray:
        """Return (h, M, 3): forecast, lower and upper bound, within the limits of the targets."""
        champion, steps = self.champion, len(self.mean)
        if self.widened is None:
            offsets = champion.offsets[:steps]
        else:
            offsets = interval_offsets(champion.forecaster, self.widened, steps)
        answer = self.mean[:, :, None] + offsets
        for held in self.held:
            answer[:, held.position] = held.last, *sorted((held.constant, held.last))
        return champion.limited(answer)


class Batcher:
    """Runs the forecasts of all requests under way in one event loop.

    Parameters
    ----------
    max_waiting : int
        Most requests under way; further requests are refused.
    deadline_seconds : float
        Longest time from admission to answer.
    """

    def __init__(self, *, max_waiting: int, deadline_seconds: float) -> None:
        self.deadline_seconds = deadline_seconds
        self._max_waiting = max_waiting
        self._lanes: dict[Champion, _Lane] = {}
        self._slow = ThreadPoolExecutor(SLOW_THREADS, thread_name_prefix="model")
        self.waiting = 0
        """Requests under way."""
        self._backlog_seconds = 0.0

    def submit(
        self, champion: Champion, series: Series, horizon_steps: int, future_values: FloatArray | None = None
    ) -> asyncio.Future[Answer]:
        """Admit a request and return the future of its answer.

        ``future_values`` (h, q) are those of the champion's `Needs.future_columns`, None without such columns.

        A request that cannot be forecast fails alone. An unexpected error of a model call fails all its requests.

        Raises
        ------
        RetryableError
            ``overloaded`` if ``max_waiting`` requests are under way, or if the work ahead would exceed the deadline.
        """
        loop = asyncio.get_running_loop()
        cost = _passes(champion, horizon_steps) * champion.row_seconds
        outlasts = self.waiting > 0 and self._backlog_seconds + cost > self.deadline_seconds
        if self.waiting >= self._max_waiting or outlasts:
            msg = f"{self.waiting} requests are under way; try again"
            raise RetryableError(msg, code="overloaded", retry_after_seconds=1)
        future: asyncio.Future[Answer] = loop.create_future()
        self.waiting += 1
        self._backlog_seconds += cost

        def leave(_: asyncio.Future[Answer]) -> None:
            self.waiting -= 1
            self._backlog_seconds = self._backlog_seconds - cost if self.waiting else 0.0

        future.add_done_callback(leave)
        lane = self._lanes.get(champion)
        if lane is None:
            lane = self._lanes[champion] = _Lane(champion, loop, self._slow, self._forget)
        lane.add(_Job(series, horizon_steps, loop.time() + self.deadline_seconds, future, future_values))
        return future

    def close(self) -> None:
        """Shut down the threads for slow models."""
        self._slow.shutdown(wait=False, cancel_futures=True)

    def _forget(self, champion: Champion) -> None:
        self._lanes.pop(champion, None)


@dataclass(slots=True, eq=False)
class _Job:
    series: Series
    horizon_steps: int
    deadline: float
    future: asyncio.Future[Answer]
    future_values: FloatArray | None = None
    imputed_cells: int = 0
    passes: Passes | None = None
    """The rolling forecast under way; ``inputs`` are its next model inputs."""
    inputs: Inputs | None = None


class _Lane:
    """The requests of one champion."""

    def __init__(
        self,
        champion: Champion,
        loop: asyncio.AbstractEventLoop,
        slow: ThreadPoolExecutor,
        on_empty: Callable[[Champion], None],
    ) -> None:
        self._champion = champion
        self._loop = loop
        self._slow = slow
        self._on_empty = on_empty
        self._short: deque[_Job] = deque()
        self._rolling: deque[_Job] = deque()
        self._busy = False
        self._one_pass = champion.bundle.output_seq_len
        self._inputs = champion.forecaster.inputs

    def add(self, job: _Job) -> None:
        """Queue a job, and schedule a turn in the event loop if none is due; jobs queued until then share the turn."""
        if self._inputs is None or job.horizon_steps <= self._one_pass:
            self._short.append(job)
        else:
            self._rolling.append(job)
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        short, rolling = self._take()
        if not short and not rolling:
            self._next()
            return
        try:
            with np.errstate(all="ignore"):  # no warning if huge inputs overflow to infinity: _answer refuses these
                call = self._call(short, rolling)
        except Exception as error:  # noqa: BLE001 - a bug fails only this turn's requests; the next turn must follow
            self._fail([*short, *rolling], error)
            self._next()
            return
        if call is None:
            self._next()
            return
        run, finish, jobs = call
        if self._champion.inline:
            self._complete(jobs, finish, run)
            self._next()
            return
        future = self._loop.run_in_executor(self._slow, run)

        def done(result: asyncio.Future[FloatArray]) -> None:
            self._complete(jobs, finish, result.result)
            self._next()

        future.add_done_callback(done)

    def _next(self) -> None:
        if self._short or self._rolling:
            self._loop.call_soon(self._turn)  # not called directly, so that the event loop polls its sockets first
            return
        self._busy = False
        self._on_empty(self._champion)

    def _take(self) -> tuple[list[_Job], list[_Job]]:
        """Remove this turn's jobs from the queues; return those that are neither finished nor past their deadline."""
        now = self._loop.time()
        most = self._champion.batch_rows
        places = max(1, most - min(ROLLING_SHARE, most // 4, len(self._rolling)))
        points = 0
        short: list[_Job] = []
        while self._short and len(short) < places:
            job = self._short[0]
            if self._inputs is None and short and points + job.horizon_steps > CLOCK_POINTS:
                break
            self._short.popleft()
            if _alive(job, now):
                points += job.horizon_steps
                short.append(job)
        rolling: list[_Job] = []
        for _ in range(len(self._rolling)):
            if rolling and len(short) + len(rolling) >= most:
                break
            job = self._rolling.popleft()
            if _alive(job, now):
                rolling.append(job)
        return short, rolling

    def _call(self, short: list[_Job], rolling: list[_Job]) -> _Call | None:
        if self._inputs is None:
            return self._clock_call(short)
        return self._rows_call(self._inputs, short, rolling)

    def _clock_call(self, jobs: list[_Job]) -> _Call:
        grid = self._champion.needs.grid
        times = [_times_after(job, grid) for job in jobs]
        seconds = np.concatenate(times)
        ahead = np.concatenate([np.arange(1, len(part) + 1) for part in times])
        cuts = np.cumsum([len(part) for part in times])[:-1]
        forecaster = self._champion.forecaster

        def finish(answer: FloatArray) -> None:
            means = np.split(forecaster.raw(answer, ahead), cuts)
            for job, when, mean in zip(jobs, times, means, strict=True):
                self._answer(job, when, mean)

        return (lambda: forecaster.at_times(seconds)), finish, jobs

    def _rows_call(self, source: PassInputs, short: list[_Job], rolling: list[_Job]) -> _Call | None:
        forecaster = self._champion.forecaster
        parts: list[Inputs] = []
        short = self._short_inputs(source, short, parts)
        rolling = [job for job in rolling if self._start(job)]
        parts.extend(job.inputs for job in rolling if job.inputs is not None)
        if not parts:
            return None
        inputs = parts[0]
        if len(parts) > 1:
            inputs = {name: np.concatenate([part[name] for part in parts]) for name in inputs}
        grid = self._champion.needs.grid
        longest = max((job.horizon_steps for job in short), default=0)

        def finish(answer: FloatArray) -> None:
            count = len(short)
            if count:
                means = forecaster.raw(answer[:count, :longest])
                for job, mean in zip(short, means, strict=True):
                    self._answer(job, _times_after(job, grid), mean[: job.horizon_steps])
            for at, job in enumerate(rolling, count):
                self._go_on(job, answer[at : at + 1])

        return (lambda: forecaster.model.run(inputs)), finish, [*short, *rolling]

    def _short_inputs(self, source: PassInputs, jobs: list[_Job], parts: list[Inputs]) -> list[_Job]:
        """Append the inputs of all short jobs; return the jobs whose rows can be used."""
        if not jobs:
            return []
        stack = stack_inputs(self._champion, source, [job.series for job in jobs], [job.future_values for job in jobs])
        for at, error in stack.refused.items():
            _fail(jobs[at], error)
        for at, cells in stack.imputed_cells.items():
            jobs[at].imputed_cells = cells
        if stack.usable:
            parts.append(stack.inputs)
        return [jobs[at] for at in stack.usable]

    def _start(self, job: _Job) -> bool:
        """Start a rolling job, unless it has started; return False if its rows cannot be used."""
        if job.passes is not None:
            return True
        try:
            job.passes = self._champion.forecaster.passes(job.series, job.horizon_steps, job.future_values)
            job.inputs = next(job.passes)
        except RejectedError as error:
            _fail(job, error)
            return False
        return True

    def _go_on(self, job: _Job, answer: FloatArray) -> None:
        if not np.isfinite(answer).all():
            _fail(job, _not_finite())
            return
        assert job.passes is not None
        try:
            job.inputs = job.passes.send(answer)
        except StopIteration as done:
            forecast = done.value
            job.imputed_cells = forecast.imputed_cells
            self._answer(job, forecast.times, forecast.mean)
            return
        self._rolling.append(job)

    def _answer(self, job: _Job, times: NDArray[np.int64], mean: FloatArray) -> None:
        if job.future.done():
            return
        if np.isfinite(mean).all():
            held = self._champion.held(job.series)
            job.future.set_result(Answer(self._champion, times, mean, job.imputed_cells, held))
        else:
            job.future.set_exception(_not_finite())

    def _complete(self, jobs: list[_Job], finish: Callable[[FloatArray], None], run: Callable[[], FloatArray]) -> None:
        try:
            finish(run())
        except Exception as error:  # noqa: BLE001 - a bug must fail only these requests
            self._fail(jobs, error)

    def _fail(self, jobs: Sequence[_Job], error: Exception) -> None:
        for job in jobs:
            _fail(job, error)


_Call = tuple[Callable[[], FloatArray], Callable[[FloatArray], None], list[_Job]]


def _passes(champion: Champion, horizon_steps: int) -> int:
    """Return the number of windows (or of times) that the model computes for a request."""
    if champion.forecaster.inputs is None:
        return horizon_steps
    return -(-horizon_steps // champion.bundle.output_seq_len)


def _times_after(job: _Job, grid: Grid) -> NDArray[np.int64]:
    times: NDArray[np.int64] = grid.after(job.series.times[-1:], job.horizon_steps)[0]
    return times


def _alive(job: _Job, now: float) -> bool:
    if job.future.done():
        return False
    if now > job.deadline:
        msg = "the forecast was not ready within the deadline; ask for a shorter horizon or try again"
        _fail(job, RetryableError(msg, code="deadline_exceeded", retry_after_seconds=1))
        return False
    return True


def _fail(job: _Job, error: Exception) -> None:
    if not job.future.done():
        job.future.set_exception(error)


def _not_finite() -> RejectedError:
    msg = "the forecast is not a finite number; the values sent are too far from those the model was trained on"
    return RejectedError(msg, code="not_finite", field="data")
