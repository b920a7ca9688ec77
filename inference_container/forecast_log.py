"""Forecast logs, behind the requests: a bounded queue, written in batches to disk, taken to the store later.

Each batch is a whole new object, ``<identifier>/date=YYYY-MM-DD/<batch>.jsonl``; nothing is ever appended to.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from flts.contracts.ids import new_pipeline_run_id
from flts.observability.logs import get_logger
from flts.observability.metrics import Metrics
from inference_container.domain.answer import predictions
from inference_container.domain.batching import Answer
from inference_container.domain.times import TimeStyle

log = get_logger(__name__)

QUEUE = "forecast_log"
STYLE = TimeStyle("iso", suffix="Z")


class ForecastLog:
    """The queue and its writer.

    Parameters
    ----------
    spool : Path
        Folder that batches are written to.
    metrics : Metrics
    queue_steps : int
        Forecast steps that may wait in memory.
    spool_bytes : int
        Bytes that may wait on disk while the store is away.
    period_seconds : float
        Between two writes.
    """

    def __init__(
        self, spool: Path, metrics: Metrics, *, queue_steps: int, spool_bytes: int, period_seconds: float
    ) -> None:
        self._spool = spool
        self._metrics = metrics
        self._queue_steps = queue_steps
        self._spool_bytes = spool_bytes
        self._period_seconds = period_seconds
        self._queue: deque[tuple[float, Answer]] = deque()
        self._waiting_steps = 0
        self._flushing = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="forecast-log", daemon=True)

    def start(self) -> None:
        """Start the writer, once."""
        if not self._thread.is_alive() and not self._stop.is_set():
            self._thread.start()

    def stop(self) -> None:
        """Stop the writer; what waits is written by the last `flush`."""
        self._stop.set()

    def add(self, answer: Answer) -> None:
        """Queue a served forecast, or drop and count it; costs the request next to nothing."""
        steps = len(answer.times)
        if self._waiting_steps + steps > self._queue_steps:
            self._metrics.forecast_log_dropped.inc()
            return
        self._waiting_steps += steps
        self._queue.append((time.time(), answer))

    def flush(self) -> bool:
        """Write all that waits, one file per identifier and day; return whether any file waits for the store."""
        with self._flushing:
            batches: dict[str, list[bytes]] = defaultdict(list)
            while self._queue:
                at, answer = self._queue.popleft()
                self._waiting_steps -= len(answer.times)
                day = datetime.fromtimestamp(at, UTC).date().isoformat()
                batches[f"{answer.champion.identifier}/date={day}"].append(_line(at, answer))
            self._metrics.queue_depth.labels(QUEUE).set(0)
            room = self._spool_bytes - (_bytes_below(self._spool) if batches else 0)
            for folder, lines in batches.items():
                data = b"".join(lines)
                room -= len(data)
                if room < 0:
                    self._metrics.forecast_log_dropped.inc(len(lines))
                    continue
                _write(self._spool / folder, data)
        return any(self._spool.rglob("*.jsonl"))

    def _run(self) -> None:
        while not self._stop.wait(self._period_seconds):
            self._metrics.queue_depth.labels(QUEUE).set(len(self._queue))
            try:
                self.flush()
            except OSError:  # a full disk must not end the writer
                log.exception("forecast_log_error")


def _line(at: float, answer: Answer) -> bytes:
    promotion = answer.champion.promotion
    return (
        msgspec.json.encode(
            {
                "created_at": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
                "identifier": promotion.identifier,
                "run_id": promotion.run_id,
                "model_type": promotion.model_type,
                "config_hash": promotion.config_hash,
                "pipeline_run_id": promotion.pipeline_run_id,
                "imputed_cells": answer.imputed_cells,
                "predictions": predictions(answer, STYLE),
            }
        )
        + b"\n"
    )


def _write(folder: Path, data: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = new_pipeline_run_id()
    unfinished = folder / f"_{name}.part"
    unfinished.write_bytes(data)
    unfinished.replace(folder / f"{name}.jsonl")


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
