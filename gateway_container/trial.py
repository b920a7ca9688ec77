"""A trial of an installation: upload a small series, wait for the decision, get a forecast, delete everything.

`helm test` runs ``python -m gateway_container.trial``. It uses only the addresses of the gateway and of the inference
service. Every wait ends within ``TRIAL_SECONDS``.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
from pydantic import Field, SecretStr

from flts.contracts.lifecycle import RunState
from flts.errors import FltsError
from flts.ingest.sample import COLUMNS, write_sample
from flts.settings import Settings

TRAIN_ROWS, TEST_ROWS = 2_000, 500
HORIZON_STEPS = 12
POLL_SECONDS = 1.0
ANSWER_SECONDS = 30.0


class TrialSettings(Settings):
    """The addresses and keys of the installation, and the trial's time limit."""

    gateway_url: str
    """Address of the gateway."""
    inference_url: str = "http://inference:8000"
    """Address of the inference service."""
    gateway_api_key: SecretStr
    """Key that uploads and deletions require."""
    inference_api_key: SecretStr | None = None
    """Key of /predict, if the inference service requires one."""
    trial_seconds: float = Field(default=900, gt=0)
    """Longest time from the upload to the forecast."""
    trial_note: str = ""
    """Text about the installation, printed at the end of the trial."""


class TrialError(FltsError):
    """The trial failed; the message names the step that it reached."""

    code = "trial_failed"


class Trial:
    """One trial, with a data set of its own."""

    def __init__(self, settings: TrialSettings, client: httpx.Client) -> None:
        self._settings = settings
        self._client = client
        self._deadline = time.monotonic() + settings.trial_seconds
        # A new name each time, because an identifier cannot be uploaded again while it is being deleted.
        self.identifier = f"trial-{uuid.uuid4().hex[:8]}"

    def run(self) -> None:
        """Upload a series, wait for the decision, request a forecast, and delete the data set.

        Raises
        ------
        TrialError
            If a step fails, or the time is over.
        """
        run = self._upload()
        try:
            decision = self._decision(run)
            _say(f"run {run} on {self.identifier}: {decision}")
            self._forecast()
        except TrialError:
            with contextlib.suppress(TrialError):
                # A failed deletion must not replace the trial's own error, which is raised below.
                self._delete()
            raise
        self._delete()

    def _upload(self) -> str:
        with tempfile.TemporaryDirectory(prefix="flts-trial-") as folder:
            train, test = write_sample(Path(folder), train_rows=TRAIN_ROWS, test_rows=TEST_ROWS)
            files = {"train": train.read_bytes(), "test": test.read_bytes()}
        answer = self._gateway("POST", f"/datasets/{self.identifier}", files=files, data={"reason": "trial"})
        if answer.is_error:
            msg = f"the upload was refused: {_said(answer)}"
            raise TrialError(msg)
        return str(answer.json()["pipeline_run_id"])

    def _decision(self, run: str) -> str:
        said = ""
        while time.monotonic() < self._deadline:
            try:
                view = self._gateway("GET", f"/runs/{run}").raise_for_status().json()
            except (TrialError, httpx.HTTPStatusError) as error:
                # The gateway may be replaced during the trial, so a failed request is repeated until the deadline.
                said = f"; at last: {error}"
            else:
                said, outcome = "", view.get("outcome")
                if outcome in {RunState.PROMOTED, RunState.KEPT}:
                    return str(outcome)
                if outcome:
                    msg = f"run {run} ended as {outcome}: {json.dumps(view.get('outcome_details'))[:1000]}"
                    raise TrialError(msg)
            time.sleep(POLL_SECONDS)
        msg = f"run {run} was not decided within {self._settings.trial_seconds:g} s{said}"
        raise TrialError(msg)

    def _forecast(self) -> None:
        """Request forecasts until the answering replica serves the promoted model."""
        tail = self._gateway("GET", f"/datasets/{self.identifier}/tail?rows=50")
        if tail.is_error:
            msg = f"the gateway has no rows to forecast from: {_said(tail)}"
            raise TrialError(msg)
        key = self._settings.inference_api_key
        headers = {"x-api-key": key.get_secret_value()} if key else {}
        body = {**tail.json(), "inference_length": HORIZON_STEPS}
        while True:
            try:
                url = f"{self._settings.inference_url.rstrip('/')}/predict"
                answer = self._client.post(url, json=body, headers=headers)
                if answer.is_success:
                    check_forecast(answer.json())
                    _say(f"{HORIZON_STEPS} steps were forecast by {answer.json()['model_type']}")
                    return
                said = _said(answer)
            except httpx.HTTPError as error:
                said = f"{type(error).__name__}: {error}"
            if time.monotonic() >= self._deadline:
                msg = f"no forecast from {self._settings.inference_url}: {said}"
                raise TrialError(msg)
            time.sleep(POLL_SECONDS)

    def _delete(self) -> None:
        answer = self._gateway("DELETE", f"/datasets/{self.identifier}?cancel=true&reason=trial")
        if answer.is_error:
            msg = f"{self.identifier} could not be deleted, `flts delete {self.identifier} --yes` does: {_said(answer)}"
            raise TrialError(msg)

    def _gateway(self, method: str, path: str, **more: Any) -> httpx.Response:
        url = f"{self._settings.gateway_url.rstrip('/')}{path}"
        headers = {"x-api-key": self._settings.gateway_api_key.get_secret_value()}
        try:
            return self._client.request(method, url, headers=headers, **more)
        except httpx.HTTPError as error:
            msg = f"the gateway at {self._settings.gateway_url} does not answer {method} {path}: {error}"
            raise TrialError(msg) from error


def check_forecast(answer: dict[str, Any]) -> None:
    """Check that every step and column has a finite number.

    Raises
    ------
    TrialError
        If the number of steps is wrong, or a value is not a finite number.
    """
    predictions = answer.get("predictions") or []
    if len(predictions) != HORIZON_STEPS:
        msg = f"the forecast has {len(predictions)} steps instead of {HORIZON_STEPS}"
        raise TrialError(msg)
    for step, row in enumerate(predictions, 1):
        for column in COLUMNS:
            value = row.get(column)
            if not isinstance(value, int | float) or not math.isfinite(value):
                msg = f"step {step} of the forecast has {value!r} as {column}"
                raise TrialError(msg)


def main() -> int:
    """Run the trial; return 0 if every step succeeded, else 1 after one line that names the failed step."""
    settings = TrialSettings.load()
    with httpx.Client(timeout=ANSWER_SECONDS) as client:
        try:
            Trial(settings, client).run()
        except TrialError as error:
            sys.stderr.write(f"trial failed: {error.message}\n")
            return 1
        finally:
            if settings.trial_note:
                _say(settings.trial_note)
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _said(answer: httpx.Response) -> str:
    return f"{answer.status_code} {answer.text[:500]}"


if __name__ == "__main__":
    raise SystemExit(main())
