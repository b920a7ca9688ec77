"""A user who sometimes uploads a small data set and waits for the decision."""

from __future__ import annotations

import json
import math
import random
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import gevent
from locust import FastHttpUser, task
from target import gateway_url, options_of

ROWS = 400
STEP = timedelta(minutes=10)
LONGEST_SECONDS = 240.0
POLL_SECONDS = 1.0
DECIDED = ("promoted", "kept", "refused", "superseded")
"""Outcomes of a completed run. Whether the model is good does not matter in a load test."""
SETTINGS = {"EPOCHS": 1, "HIDDEN_SIZE": 8, "NUM_LAYERS": 1}


class UploadUser(FastHttpUser):
    """Uploads, then follows the run to its outcome; one user of this kind, a few uploads a minute."""

    fixed_count = 1
    network_timeout = 60.0
    connection_timeout = 5.0

    def on_start(self) -> None:
        """Choose an identifier for this user."""
        self.identifier = f"load-{uuid.uuid4().hex[:8]}"

    def wait_time(self) -> float:
        """Return the rest of ``--upload-seconds`` since the last upload began, or 0 if the run took longer."""
        return max(0.0, self._began + options_of(self.environment).upload_seconds - time.monotonic())

    @task
    def upload(self) -> None:
        """Upload a new series, and wait for its decision."""
        self._began = time.monotonic()
        run = self._send()
        if run is None:
            return
        problem = self._follow(run)
        self.environment.events.request.fire(
            request_type="RUN",
            name="upload to decision",
            response_time=1000 * (time.monotonic() - self._began),
            response_length=0,
            exception=None if problem is None else RuntimeError(problem),
            context={},
        )

    def _send(self) -> str | None:
        boundary = uuid.uuid4().hex
        headers = {
            "content-type": f"multipart/form-data; boundary={boundary}",
            "x-api-key": options_of(self.environment).api_key,
        }
        body = form(boundary, train=sample(random.randrange(2**31)), settings=json.dumps(SETTINGS))
        url = gateway_url(self.environment, f"/datasets/{self.identifier}")
        name = "POST /datasets/{identifier}"
        with self.client.post(url, data=body, headers=headers, name=name, catch_response=True) as answer:
            if answer.status_code != 202:  # noqa: PLR2004 - accepted
                answer.failure(f"{answer.status_code or 'no answer'}: {(answer.text or str(answer.error or ''))[:200]}")
                return None
            return str(answer.json()["pipeline_run_id"])

    def _follow(self, run: str) -> str | None:
        """Wait for the outcome; return its error, or None."""
        url, deadline = gateway_url(self.environment, f"/runs/{run}"), self._began + LONGEST_SECONDS
        while time.monotonic() < deadline:
            gevent.sleep(POLL_SECONDS)
            with self.client.get(url, name="GET /runs/{run_id}", catch_response=True) as answer:
                if answer.status_code != 200:  # noqa: PLR2004 - OK
                    answer.failure(f"{answer.status_code or 'no answer'}")
                    continue
                outcome: Any = answer.json().get("outcome")
            if outcome:
                return None if outcome in DECIDED else f"the run ended as {outcome}"
        return f"no decision within {LONGEST_SECONDS:g} s"


def sample(seed: int) -> str:
    """Return a CSV of two series with a daily cycle and noise."""
    chance = random.Random(seed)
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=chance.randrange(365))
    lines = ["ts,load,heat"]
    for row in range(ROWS):
        rhythm = math.sin(2 * math.pi * row / 144)
        load = 50 + 20 * rhythm + chance.gauss(0, 2)
        lines.append(f"{(start + row * STEP).isoformat()},{load:.3f},{20 + 0.1 * load + chance.gauss(0, 0.3):.3f}")
    return "\n".join(lines) + "\n"


def form(boundary: str, *, train: str, settings: str) -> bytes:
    """Return a multipart form with one file and one text field."""
    parts = (
        ('form-data; name="train"; filename="train.csv"', "text/csv", train),
        ('form-data; name="settings"', "text/plain", settings),
    )
    text = "".join(
        f"--{boundary}\r\ncontent-disposition: {disposition}\r\ncontent-type: {kind}\r\n\r\n{value}\r\n"
        for disposition, kind, value in parts
    )
    return f"{text}--{boundary}--\r\n".encode()
