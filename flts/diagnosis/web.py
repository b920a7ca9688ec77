"""The steps that diagnose an HTTP server: MLflow, the gateway, inference."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flts.diagnosis.network import address_of, network_steps
from flts.diagnosis.steps import Backend, Step
from flts.errors import FltsError

ANSWER_SECONDS = 3.5
MOST_BYTES = 1 << 20
HARMLESS = "/runs/resume?older_than_seconds=1000000000"
"""A request that needs the gateway's key and resumes no run, because no run is thirty years old."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer of any status."""

    status: int
    text: str

    def json(self) -> Any:
        """Return the body as JSON, or None if it is not JSON."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None


class WrongAnswerError(FltsError):
    """An answer that a healthy backend does not send."""

    code = "wrong_answer"


def ask(
    url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
) -> Answer:
    """Send one request without a proxy, because the backends are in the local network."""
    data = None if body is None else json.dumps(body).encode()
    sent = {"content-type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, data=data, headers=sent, method=method)  # noqa: S310 - address_of has checked
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=ANSWER_SECONDS) as answer:
            return Answer(answer.status, answer.read(MOST_BYTES).decode(errors="replace"))
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.read(MOST_BYTES).decode(errors="replace"))


def mlflow(url: str, *, start: str) -> Backend:
    """Return MLflow's steps: name, TCP, request, host check, search."""
    base, setting = url.rstrip("/"), "MLFLOW_TRACKING_URI"
    host = ":".join(map(str, address_of(url)))
    search = f"{base}/api/2.0/mlflow/experiments/search"

    def host_check() -> str:
        answer = ask(search, method="POST", body={"max_results": 1})
        if answer.status == 403:  # noqa: PLR2004 - MLflow 3 answers 403 to a Host header that is not allowed
            msg = f"403 to the Host header {host}: {answer.text[:120]}"
            raise WrongAnswerError(msg)
        return f"the Host header {host} is accepted"

    def find() -> str:
        answer = ask(search, method="POST", body={"max_results": 1})
        found = answer.json()
        if answer.status != 200 or not isinstance(found, dict):  # noqa: PLR2004 - OK
            msg = f"{answer.status}: {answer.text[:200]}"
            raise WrongAnswerError(msg)
        return f"found {len(found.get('experiments', []))} of at most 1 experiment"

    steps = [
        *network_steps([address_of(url)], setting=setting, start=start),
        Step("request", lambda: _expect(f"{base}/health"), lambda _: f"point {setting} at an MLflow server"),
        Step(
            "host check",
            host_check,
            lambda _: f"start MLflow with --allowed-hosts {host} (or MLFLOW_SERVER_ALLOWED_HOSTS)",
        ),
        Step("search", find, lambda _: "look into MLflow's log: its database does not answer (mlflow db upgrade?)"),
    ]
    return Backend("mlflow", url, steps)


def gateway(url: str, api_key: str | None, *, start: str) -> Backend:
    """Return the gateway's steps: name, TCP, request, ready, key."""
    base = url.rstrip("/")

    def key() -> str:
        if api_key is None:
            msg = "no key is known: only reading is possible"
            raise WrongAnswerError(msg)
        answer = ask(f"{base}{HARMLESS}", method="POST", headers={"x-api-key": api_key})
        if answer.status != 200:  # noqa: PLR2004 - OK
            msg = f"{answer.status}: {answer.text[:200]}"
            raise WrongAnswerError(msg)
        return "accepted"

    steps = [
        *network_steps([address_of(url)], setting="FLTS_URL", start=start),
        Step("request", lambda: _expect(f"{base}/healthz"), lambda _: "point FLTS_URL at the gateway"),
        Step(
            "ready",
            lambda: _ready(base),
            lambda _: "mend the backend that it waits for, which has steps of its own here",
        ),
        Step("key", key, lambda _: "give its key with FLTS_API_KEY or FLTS_API_KEY_FILE"),
    ]
    return Backend("gateway", url, steps)


def inference(url: str, api_key: str | None, *, start: str) -> Backend:
    """Return inference's steps: name, TCP, request, ready, champions."""
    base = url.rstrip("/")

    def champions() -> str:
        answer = ask(f"{base}/models", headers={"x-api-key": api_key} if api_key else {})
        found = answer.json()
        if answer.status != 200 or not isinstance(found, dict):  # noqa: PLR2004 - OK
            msg = f"{answer.status}: {answer.text[:200]}"
            raise WrongAnswerError(msg)
        broken = [str(one["identifier"]) for one in found.get("models", []) if one.get("problem")]
        if broken:
            msg = f"cannot serve: {', '.join(broken)}"
            raise WrongAnswerError(msg)
        return f"{len(found.get('models', []))} champion(s)"

    steps = [
        *network_steps([address_of(url)], setting="INFERENCE_URL", start=start),
        Step("request", lambda: _expect(f"{base}/healthz"), lambda _: "point INFERENCE_URL at the inference service"),
        Step(
            "ready",
            lambda: _ready(base),
            lambda _: "mend the store, which has steps of its own here: it has no list of champions",
        ),
        Step("champions", champions, _champion_remedy),
    ]
    return Backend("inference", url, steps)


def _expect(url: str) -> str:
    answer = ask(url)
    if answer.status != 200:  # noqa: PLR2004 - OK
        msg = f"{answer.status}: {answer.text[:200]}"
        raise WrongAnswerError(msg)
    return "answers 200"


def _ready(base: str) -> str:
    answer = ask(f"{base}/readyz")
    if answer.status != 200:  # noqa: PLR2004 - OK
        msg = f"{answer.status}: {answer.text[:300]}"
        raise WrongAnswerError(msg)
    return "ready"


def _champion_remedy(error: Exception) -> str:
    if str(error).startswith("401"):
        return "give its key with INFERENCE_API_KEY"
    return "`flts models` says what is wrong with each champion; `flts retrain NAME` makes a new one"
