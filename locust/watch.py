"""Read the services' metrics during the load, as evidence besides the client's own measurements."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from urllib.error import URLError
from urllib.request import urlopen

import gevent

PERIOD_SECONDS = 1.0
TIMEOUT_SECONDS = 5.0
PROCESS = "process_start_time_seconds"
"""Metric that distinguishes the replicas behind one address."""
INFERENCE = ('flts_predictions_total{outcome="success"}', "flts_predict_latency_seconds_count")
GATEWAY = ('flts_uploads_total{outcome="accepted"}', "flts_http_requests_total")


class MetricsWatch:
    """Measures the growth of metrics, summed over the processes that answered.

    Parameters
    ----------
    pages : sequence of (address, names)
        The metrics to follow on each /metrics page, as ``name`` or ``name{label="value"}``.
    """

    def __init__(self, pages: Sequence[tuple[str, Sequence[str]]]) -> None:
        self._pages = pages
        self._seen: dict[str, dict[float, tuple[float, float]]] = {}
        self._greenlet: gevent.Greenlet | None = None

    def start(self) -> None:
        """Read the metrics now, and then every second until `stop`."""
        self.look()
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> dict[str, float | None]:
        """Read the metrics a last time; return each metric's growth, or None for a metric that was never read."""
        if self._greenlet is not None:
            self._greenlet.kill()
        self.look()
        names = [name for _, metrics in self._pages for name in metrics]
        return {name: self._growth(name) for name in names}

    def look(self, fetch: Callable[[str], str] | None = None) -> None:
        """Read every page once; skip a page that does not answer."""
        for address, names in self._pages:
            try:
                page = (fetch or _fetch)(address)
            except (OSError, URLError):
                continue
            process = value_of(page, PROCESS)
            for name in names:
                value = value_of(page, name)
                if value is None or process is None:
                    continue
                first, _ = self._seen.setdefault(name, {}).get(process, (value, value))
                self._seen[name][process] = (first, value)

    def _growth(self, name: str) -> float | None:
        processes = self._seen.get(name)
        return None if not processes else sum(last - first for first, last in processes.values())

    def _run(self) -> None:
        while True:
            time.sleep(PERIOD_SECONDS)  # gevent has patched this sleep, so the users continue
            self.look()


def value_of(page: str, name: str) -> float | None:
    """Return the sum of a metric's series on a page, or None if there is none."""
    metric, _, labels = name.partition("{")
    pattern = rf"^{re.escape(metric)}(?:\{{(?P<labels>.*)\}})? (?P<value>\S+)$"
    wanted = labels.removesuffix("}")
    values = [
        float(line["value"]) for line in re.finditer(pattern, page, re.MULTILINE) if wanted in (line["labels"] or "")
    ]
    return sum(values) if values else None


def _fetch(address: str) -> str:
    with urlopen(address, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - the person who runs the test gives the address
        return str(answer.read().decode())
