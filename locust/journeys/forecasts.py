"""A user who requests forecasts of the latest measurements."""

from __future__ import annotations

import math
import random
import zlib
from typing import Any, ClassVar

from gevent.lock import Semaphore
from locust import FastHttpUser, between, task
from target import gateway_url, options_of

HORIZONS = (1, 1, 6, 12, 60, 144)
ROWS, MOST_ROWS = 400, 10_000
WINDOW = 60
"""Rows of one request; more if the champion requires more."""
ENOUGH = 2
"""Distinct answers that are kept: two prove that not all answers are equal."""
OWN = "load-"
"""Prefix of the identifiers that the load test uploads; forecasts are requested for other data sets."""


class ForecastUser(FastHttpUser):
    """Requests forecasts of different lengths from different rows, and checks the answers."""

    weight = 1
    wait_time = between(0.1, 0.5)
    network_timeout = 10.0
    connection_timeout = 5.0

    series: ClassVar[dict[str, Any] | None] = None
    asking: ClassVar[Semaphore] = Semaphore()
    answers: ClassVar[int] = 0
    distinct: ClassVar[set[int]] = set()

    @task(9)
    def predict(self) -> None:
        """Request a forecast from the inference service directly."""
        self._ask("/predict", "POST /predict")

    @task(1)
    def predict_through_the_gateway(self) -> None:
        """Request a forecast through the gateway."""
        self._ask(gateway_url(self.environment, "/predict"), "POST /predict (gateway)")

    def _ask(self, url: str, name: str) -> None:
        series = self._rows()
        if series is None:
            return
        horizon = random.choice(HORIZONS)
        body = {
            "identifier": series["identifier"],
            "index_col": series["index_col"],
            "inference_length": horizon,
            "data": _window(series["data"], max(WINDOW, series["rows_required"])),
        }
        with self.client.post(url, json=body, name=name, catch_response=True) as answer:
            problem = _status(answer) or _wrong(answer.json(), horizon)
            if problem:
                answer.failure(problem)
                return
            ForecastUser.answers += 1
            if len(ForecastUser.distinct) < ENOUGH:
                # crc32, because hash() has another salt in each worker: equal answers would count as distinct.
                ForecastUser.distinct.add(zlib.crc32(str(answer.json()["predictions"][0]).encode()))

    def _rows(self) -> dict[str, Any] | None:
        """Return the rows that requests choose windows from, fetched once for all users of this process."""
        with ForecastUser.asking:
            if ForecastUser.series is None:
                ForecastUser.series = self._fetch()
            return ForecastUser.series

    def _fetch(self) -> dict[str, Any] | None:
        wanted = options_of(self.environment).identifier
        with self.client.get("/models", name="GET /models", catch_response=True) as answer:
            problem = _status(answer)
            models = [] if problem else answer.json()["models"]
            served = [
                model
                for model in models
                if (model["identifier"] == wanted if wanted else not model["identifier"].startswith(OWN))
            ]
            if not served:
                answer.failure(problem or f"no champion {wanted}: upload a data set first (flts upload NAME FILE)")
                return None
            champion = served[0]
        rows = max(ROWS, 2 * int(champion.get("rows_required") or 0))
        path = gateway_url(self.environment, f"/datasets/{champion['identifier']}/tail?rows={min(rows, MOST_ROWS)}")
        with self.client.get(path, name="GET /datasets/{identifier}/tail", catch_response=True) as answer:
            problem = _status(answer)
            if problem:
                answer.failure(problem)
                return None
            return {**answer.json(), "rows_required": champion.get("rows_required") or WINDOW}


def _window(data: dict[str, list[Any]], rows: int) -> dict[str, list[Any]]:
    """Return consecutive rows that end at a random row of the later half."""
    there = len(next(iter(data.values())))
    end = random.randint(max(min(rows, there), there // 2), there)
    return {column: values[max(0, end - rows) : end] for column, values in data.items()}


def _status(answer: Any) -> str | None:
    if answer.status_code == 200:  # noqa: PLR2004 - OK
        return None
    return f"{answer.status_code or 'no answer'}: {(answer.text or str(answer.error or ''))[:200]}"


def _wrong(body: dict[str, Any], horizon: int) -> str | None:
    """Return the error of a forecast, or None."""
    if body.get("status") != "SUCCESS":
        return f"the status is {body.get('status')}"
    rows = body["predictions"]
    if len(rows) != horizon:
        return f"{len(rows)} rows for a horizon of {horizon}"
    if len({row["ts"] for row in rows}) != horizon:
        return "times repeat"
    targets = [name for name in rows[0] if name != "ts" and not name.endswith(("_lower", "_upper"))]
    strange = next(((row, target) for row in rows for target in targets if not _is_finite(row[target])), None)
    if strange is not None:
        return f"{strange[1]} is {strange[0][strange[1]]} at {strange[0]['ts']}"
    if all(len({row[target] for row in rows}) == 1 for target in targets) and (horizon > 1 or not targets):
        return f"the forecast is constant over {horizon} steps" if targets else "no target was forecast"
    return None


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
