"""The trial of an installation: the results that pass, and that the trial removes its data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from flts.ingest.sample import COLUMNS
from gateway_container import trial
from gateway_container.trial import HORIZON_STEPS, Trial, TrialError, TrialSettings, check_forecast

GATEWAY, INFERENCE = "http://gateway.test:8000", "http://inference.test:8000"
RUN = "01900000-0000-7000-8000-000000000000"


def forecast(steps: int = HORIZON_STEPS, **changed: Any) -> dict[str, Any]:
    row = {"ts": 0, **dict.fromkeys(COLUMNS, 1.5), **changed}
    return {"status": "SUCCESS", "model_type": "GRU", "predictions": [row] * steps}


class Installation:
    """Answers like the gateway and the inference service, and keeps the requests."""

    def __init__(self) -> None:
        self.outcome: dict[str, Any] = {"outcome": "promoted"}
        self.forecasts: list[httpx.Response] = [httpx.Response(200, json=forecast())]
        self.upload = httpx.Response(202, json={"pipeline_run_id": RUN})
        self.delete = httpx.Response(200, json={})
        self.views = [httpx.Response(200, json={"outcome": None})]
        self.asked: list[str] = []
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        path = request.url.path
        self.asked.append(f"{request.method} {re.sub('trial-[0-9a-f]+', 'X', path)}")
        if request.url.host == "inference.test":
            return self.forecasts.pop(0) if len(self.forecasts) > 1 else self.forecasts[0]
        if request.method == "POST":
            return self.upload
        if request.method == "DELETE":
            return self.delete
        if path.endswith("/tail"):
            identifier = path.split("/")[2]
            return httpx.Response(200, json={"identifier": identifier, "index_col": "time", "data": {"time": []}})
        return self.views.pop(0) if self.views else httpx.Response(200, json=self.outcome)


class Clock:
    """A clock that advances only while a caller sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def installation(monkeypatch: pytest.MonkeyPatch) -> Installation:
    monkeypatch.setattr(trial, "time", Clock())
    return Installation()


@pytest.fixture
def attempt(installation: Installation) -> Callable[..., Trial]:
    def make(**settings: Any) -> Trial:
        given = {"gateway_url": GATEWAY, "inference_url": INFERENCE, "gateway_api_key": "a-key-of-the-test"}
        client = httpx.Client(transport=httpx.MockTransport(installation))
        return Trial(TrialSettings(**{**given, **settings}), client)

    return make


def test_it_uploads_waits_forecasts_and_deletes(installation: Installation, attempt: Callable[..., Trial]) -> None:
    attempt().run()

    assert installation.asked == [
        "POST /datasets/X",
        f"GET /runs/{RUN}",
        f"GET /runs/{RUN}",
        "GET /datasets/X/tail",
        "POST /predict",
        "DELETE /datasets/X",
    ]
    upload, predict = installation.requests[0], installation.requests[4]
    assert upload.headers["x-api-key"] == "a-key-of-the-test"
    assert b'name="train"' in upload.read()
    assert json.loads(predict.read())["inference_length"] == HORIZON_STEPS
    assert "x-api-key" not in predict.headers


def test_a_replica_that_has_not_heard_of_the_model_yet_is_asked_again(
    installation: Installation, attempt: Callable[..., Trial]
) -> None:
    waiting = httpx.Response(503, json={"error": {"code": "no_champion"}})
    installation.forecasts = [waiting, waiting, httpx.Response(200, json=forecast())]
    attempt(inference_api_key="another-key-of-the-test").run()
    assert installation.asked.count("POST /predict") == 3
    predict = next(each for each in installation.requests if each.url.path == "/predict")
    assert predict.headers["x-api-key"] == "another-key-of-the-test"


def test_a_gateway_that_is_replaced_meanwhile_is_asked_again(
    installation: Installation, attempt: Callable[..., Trial]
) -> None:
    installation.views = [httpx.Response(502), httpx.Response(503)]
    attempt().run()
    assert installation.asked.count(f"GET /runs/{RUN}") == 3


@pytest.mark.parametrize("outcome", ["refused", "rejected", "cancelled", "superseded"])
def test_a_run_that_ends_without_a_champion_fails_with_its_reasons(
    installation: Installation, attempt: Callable[..., Trial], outcome: str
) -> None:
    installation.outcome = {"outcome": outcome, "outcome_details": {"reasons": ["skill -0.2"]}}
    with pytest.raises(TrialError, match=f"ended as {outcome}.*skill -0.2"):
        attempt().run()
    assert installation.asked[-1] == "DELETE /datasets/X"
    assert "POST /predict" not in installation.asked


def test_a_run_without_a_decision_fails_in_time(installation: Installation, attempt: Callable[..., Trial]) -> None:
    installation.outcome = {"outcome": None}
    with pytest.raises(TrialError, match="not decided within 5 s"):
        attempt(trial_seconds=5).run()
    assert installation.asked[-1] == "DELETE /datasets/X"


def test_no_forecast_in_time_fails_with_what_was_answered(
    installation: Installation, attempt: Callable[..., Trial]
) -> None:
    installation.forecasts = [httpx.Response(503, json={"error": {"code": "no_champion"}})]
    with pytest.raises(TrialError, match=r"no forecast from.*503.*no_champion"):
        attempt(trial_seconds=5).run()
    assert installation.asked[-1] == "DELETE /datasets/X"


def test_a_refused_upload_fails_and_there_is_nothing_to_delete(
    installation: Installation, attempt: Callable[..., Trial]
) -> None:
    installation.upload = httpx.Response(401, text="unauthorized")
    with pytest.raises(TrialError, match="refused: 401 unauthorized"):
        attempt().run()
    assert installation.asked == ["POST /datasets/X"]


def test_what_stays_behind_is_named(installation: Installation, attempt: Callable[..., Trial]) -> None:
    installation.delete = httpx.Response(409, text="runs are under way")
    with pytest.raises(TrialError, match=r"trial-\w+ could not be deleted.*409"):
        attempt().run()


def test_a_gateway_that_is_away_is_named() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        msg = "connection refused"
        raise httpx.ConnectError(msg, request=request)

    settings = TrialSettings(gateway_url=GATEWAY, gateway_api_key="a-key-of-the-test")  # type: ignore[arg-type]
    with pytest.raises(TrialError, match=f"{GATEWAY} does not answer POST"):
        Trial(settings, httpx.Client(transport=httpx.MockTransport(refuse))).run()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (forecast(steps=3), "3 steps instead of 12"),
        (forecast(power=None), "step 1 of the forecast has None as power"),
        (forecast(visitors=float("nan")), "has nan as visitors"),
        (forecast(orders="7"), "has '7' as orders"),
        ({"status": "SUCCESS"}, "0 steps"),
    ],
)
def test_a_forecast_has_a_number_for_every_step_and_column(answer: dict[str, Any], reason: str) -> None:
    with pytest.raises(TrialError, match=reason):
        check_forecast(answer)
    check_forecast(forecast())
