"""Forecast logs outside of the request path: a bounded queue, written in batches to disk, uploaded to the store later.

Each batch is a new object, ``<identifier>/date=YYYY-MM-DD/<batch>.jsonl``. Objects are never appended to.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from flts.contracts.ids import new_pipeline_run_id
from flts.killpoints import reached
from flts.observability.logs import get_logger
from flts.observability.metrics import Metrics
from flts.storage import layout
from inference_container.domain.promotion import Promotion

log = get_logger(__name__)

QUEUE = "forecast_log"


class ForecastLog:
    """The queue and its writer.

    Parameters
    ----------
    spool : Path
        Folder that batches are written to.
    metrics : Metrics
    queue_bytes : int
        Most bytes that wait in memory.
    spool_bytes : int
        Most bytes that wait on disk while the store is away.
    period_seconds : float
        Seconds between two writes.
    """

    def __init__(
        self, spool: Path, metrics: Metrics, *, queue_bytes: int, spool_bytes: int, period_seconds: float
    ) -> None:
        self._spool = spool
        self._metrics = metrics
        self._queue_bytes = queue_bytes
        self._spool_bytes = spool_bytes
        self._period_seconds = period_seconds
        self._queue: deque[tuple[float, Promotion, bytes]] = deque()
        self._waiting_bytes = 0
        self._flushing = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="forecast-log", daemon=True)

    def start(self) -> None:
        """Start the writer, once."""
        if not self._thread.is_alive() and not self._stop.is_set():
            self._thread.start()

    def stop(self) -> None:
        """Stop the writer; the refresher, which stops later, calls `flush` a last time."""
        self._stop.set()

    def add(self, promotion: Promotion, body: bytes) -> None:
        """Queue a served answer, without I/O; if the queue is full, drop and count the answer."""
        if self._waiting_bytes + len(body) > self._queue_bytes:
            self._metrics.forecast_log_dropped.inc()
            return
        self._waiting_bytes += len(body)
        self._queue.append((time.time(), promotion, body))

    def flush(self) -> bool:
        """Write the queue, one file per identifier and day; return whether any file waits for the store.

        Answers that cannot be written are dropped and counted.
        """
        with self._flushing:
            batches: dict[str, list[bytes]] = defaultdict(list)
            while self._queue:
                at, promotion, body = self._queue.popleft()
                self._waiting_bytes -= len(body)
                when = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
                batches[layout.FORECASTS.prefix(promotion.identifier, when[:10])].append(_line(when, promotion, body))
            self._metrics.queue_depth.labels(QUEUE).set(0)
            room = self._spool_bytes - (_bytes_below(self._spool) if batches else 0)
            for folder, lines in batches.items():
                data = b"".join(lines)
                room -= len(data)
                if room < 0:
                    self._metrics.forecast_log_dropped.inc(len(lines))
                    continue
                try:
                    _write(self._spool / folder, data)
                except OSError:
                    # An error such as a full disk must not end the writer's or the refresher's thread, so the log lines
                    # are dropped.
                    self._metrics.forecast_log_dropped.inc(len(lines))
                    log.exception("forecast_log_error")
        return any(self._spool.rglob("*.jsonl"))

    def _run(self) -> None:
        while not self._stop.wait(self._period_seconds):
            self._metrics.queue_depth.labels(QUEUE).set(len(self._queue))
            try:
                self.flush()
            except OSError:
                log.exception("forecast_log_error")


def _line(when: str, promotion: Promotion, body: bytes) -> bytes:
    """Return the served bytes with two fields put before them; encoding the answer again would delay requests."""
    return b'{"created_at":"%b","pipeline_run_id":"%b",%b\n' % (
        when.encode(),
        promotion.pipeline_run_id.encode(),
        body[1:],
    )


def _write(folder: Path, data: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = new_pipeline_run_id()
    unfinished = folder / f"_{name}.part"
    try:
        unfinished.write_bytes(data)
        reached("cache-write.before", "forecasts", folder.parent.name)
        unfinished.replace(folder / f"{name}.jsonl")
        reached("cache-write.after", "forecasts", folder.parent.name)
    except OSError:
        with suppress(OSError):
            # A partial file is useless and would count towards the folder's limit.
            unfinished.unlink(missing_ok=True)
        raise


def _bytes_below(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # the fetching child has moved the file to the store meanwhile
            size += path.stat().st_size if path.is_file() else 0
    return size
