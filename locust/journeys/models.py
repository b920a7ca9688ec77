"""A user who lists champions and runs."""

from __future__ import annotations

from locust import FastHttpUser, between, task
from target import gateway_url


class ModelsUser(FastHttpUser):
    """Requests the champions and the newest runs."""

    fixed_count = 1
    wait_time = between(1.0, 2.0)
    network_timeout = 10.0
    connection_timeout = 5.0

    @task(3)
    def models(self) -> None:
        """List the champions."""
        with self.client.get("/models", name="GET /models", catch_response=True) as answer:
            if answer.status_code != 200:  # noqa: PLR2004 - OK
                answer.failure(f"{answer.status_code or 'no answer'}")
            elif not answer.json()["models"]:
                answer.failure("no champion is listed")

    @task(1)
    def runs(self) -> None:
        """List the newest runs."""
        with self.client.get(gateway_url(self.environment, "/runs"), name="GET /runs", catch_response=True) as answer:
            if answer.status_code != 200:  # noqa: PLR2004 - OK
                answer.failure(f"{answer.status_code or 'no answer'}")
            elif "runs" not in answer.json():
                answer.failure("no list of runs")
