"""A client of the gateway's HTTP API."""

from __future__ import annotations

import contextlib
import json
import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from cli.settings import is_local
from flts.errors import FltsError

Record = dict[str, Any]
# The client reconnects to a stream of events after this time without a byte; the gateway sends a keep-alive every 15 s.
STREAM_SILENCE_SECONDS = 60.0
# Timeout of a replay: the gateway publishes for at most 10 s and then waits for the broker's last acknowledgement.
REPLAY_SECONDS = 60.0
RECONNECT_SECONDS = (0.2, 0.5, 1.0, 2.0)


class ApiError(FltsError):
    """The gateway refused a request, or failed; ``status`` is the HTTP status."""

    code = "api_error"

    def __init__(self, message: str, *, status: int, code: str | None = None, field: str | None = None) -> None:
        super().__init__(message, code=code, field=field)
        self.status = status


class GatewayAwayError(FltsError):
    """The gateway does not answer."""

    code = "gateway_away"


class StillRunningError(FltsError):
    """A run did not end within the given time."""

    code = "still_running"


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One server-sent event of a run."""

    kind: str
    """``state``, ``progress``, ``stage`` or ``end``."""
    data: Record = field(default_factory=dict)


class GatewayClient:
    """Sends requests to one gateway; use it as a context manager.

    Parameters
    ----------
    url : str
        The gateway's address.
    api_key : str, optional
        Key of the gateway; requests that change something, and those for dead letters, need it.
    timeout_seconds : float
        Longest wait for an answer; ten times as long for uploads, retrains, deletions and the janitor.
    reconnect_seconds : float
        How long `follow` tries to reach a gateway that does not answer.
    transport, sleep
        Replace the network and the waiting in tests.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout_seconds: float = 30,
        reconnect_seconds: float = 120,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = check_url(url)
        self._timeout = timeout_seconds
        self._reconnect_seconds = reconnect_seconds
        self._sleep = sleep
        try:
            self._client = httpx.Client(
                base_url=self.url,
                headers={"x-api-key": api_key} if api_key else {},
                timeout=httpx.Timeout(timeout_seconds, connect=min(5.0, timeout_seconds)),
                transport=transport,
                # HTTP_PROXY is ignored for an address of this machine, because a proxy cannot reach it.
                trust_env=not is_local(url),
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise _bad_url(url) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def upload(
        self,
        identifier: str,
        train: Path,
        test: Path | None = None,
        *,
        settings: Mapping[str, str | float | bool] | None = None,
        force: bool = False,
        idempotency_key: str | None = None,
        reason: str | None = None,
        replace: bool = False,
    ) -> Record:
        """Upload a data set and start a run on it; return the gateway's answer.

        The files are streamed. If the connection breaks or the gateway does not answer, the request is sent once more
        with the same Idempotency-Key, so only one run is started.

        Raises
        ------
        ApiError, GatewayAwayError
        OSError
            If a file cannot be read.
        """
        key = idempotency_key or str(uuid.uuid4())
        data = {"settings": json.dumps(dict(settings or {})), "force": "true" if force else "false", **_given(reason)}
        if replace:
            data["replace"] = "true"

        def send() -> Record:
            with contextlib.ExitStack() as files:
                parts = {"train": ("train.csv", files.enter_context(train.open("rb")), "text/csv")}
                if test is not None:
                    parts["test"] = ("test.csv", files.enter_context(test.open("rb")), "text/csv")
                return self._request(
                    "POST",
                    f"/datasets/{_segment(identifier)}",
                    files=parts,
                    data=data,
                    headers={"idempotency-key": key},
                    timeout=self._timeout * 10,
                )

        try:
            return send()
        except GatewayAwayError:
            self._sleep(RECONNECT_SECONDS[-1])
            return send()

    def start_run(
        self,
        identifier: str,
        *,
        settings: Mapping[str, str | float | bool] | None = None,
        force: bool = False,
        salt: str | None = None,
        reason: str | None = None,
    ) -> Record:
        """Start a run on an identifier's newest upload; return the gateway's answer."""
        body: Record = {"identifier": identifier, "settings": dict(settings or {}), "force": force, **_given(reason)}
        if salt is not None:
            body["salt"] = salt
        return self._request("POST", "/runs", json=body, timeout=self._timeout * 10)

    def resume(
        self, run_id: str | None = None, *, older_than_seconds: float | None = None, reason: str | None = None
    ) -> list[str]:
        """Make the gateway announce unfinished runs again; return their ids."""
        if run_id is not None:
            answer = self._request("POST", f"/runs/{_segment(run_id)}/resume", params=_given(reason))
        else:
            params: Record = {} if older_than_seconds is None else {"older_than_seconds": older_than_seconds}
            params |= _given(reason)
            answer = self._request("POST", "/runs/resume", params=params)
        return list(answer["resumed"])

    def evaluate_again(self, run_id: str, *, reason: str | None = None) -> Record:
        """Start a run that evaluates another run's candidates again; return the gateway's answer."""
        return self._request("POST", f"/runs/{_segment(run_id)}/evaluate", params=_given(reason))

    def cancel(self, run_id: str, *, reason: str | None = None) -> Record:
        """End a run without a decision; return the gateway's answer."""
        return self._request("POST", f"/runs/{_segment(run_id)}/cancel", params=_given(reason))

    def roll_back(self, identifier: str, *, of_run: str | None = None, reason: str | None = None) -> Record:
        """Start a run that makes an earlier champion the current one again; return the gateway's answer."""
        params = ({} if of_run is None else {"of_run": of_run}) | _given(reason)
        return self._request("POST", f"/datasets/{_segment(identifier)}/rollback", params=params)

    def delete(
        self, identifier: str, *, dry_run: bool = False, cancel: bool = False, reason: str | None = None
    ) -> Record:
        """Delete a data set everywhere, or with ``dry_run`` only list its objects; return the gateway's answer."""
        params = {"dry_run": dry_run, "cancel": cancel, **_given(reason)}
        path = f"/datasets/{_segment(identifier)}"
        return self._request("DELETE", path, params=params, timeout=self._timeout * 10)

    def janitor(self, *, dry_run: bool = False, reason: str | None = None) -> Record:
        """Run the janitor, or preview its round; return the gateway's answer."""
        method, params = ("GET", {}) if dry_run else ("POST", _given(reason))
        return self._request(method, "/janitor", params=params, timeout=self._timeout * 10)

    def operations(self, identifier: str | None = None, *, run_id: str | None = None) -> Record:
        """Return the operations on a data set or on one of its runs, newest first, and the state of its deletion."""
        params = {"identifier": identifier, "pipeline_run_id": run_id}
        return self._request("GET", "/operations", params={name: one for name, one in params.items() if one})

    def runs(self, identifier: str | None = None, *, limit: int = 20) -> list[Record]:
        """Return the newest runs, newest first."""
        params: Record = {"limit": limit}
        if identifier is not None:
            params["identifier"] = identifier
        return list(self._request("GET", "/runs", params=params)["runs"])

    def run(self, run_id: str) -> Record:
        """Return a run's records and its live progress."""
        return self._request("GET", f"/runs/{_segment(run_id)}")

    def datasets(self) -> list[Record]:
        """Return all data sets with their newest upload, last run and champion."""
        return list(self._request("GET", "/datasets")["datasets"])

    def tail(self, identifier: str, *, rows: int | None = None) -> Record:
        """Return the last raw rows as a body for `forecast`; without ``rows`` enough for the champion."""
        wanted = {} if rows is None else {"rows": rows}
        return self._request("GET", f"/datasets/{_segment(identifier)}/tail", params=wanted)

    def models(self) -> Record:
        """Return the champions that are served."""
        return self._request("GET", "/models")

    def champion(self, identifier: str) -> Record:
        """Return the served champion of a data set as `models` shows it; empty if none is served."""
        served = self.models().get("models") or ()
        return next((dict(model) for model in served if model.get("identifier") == identifier), {})

    def forecast(
        self,
        body: Mapping[str, Any],
        *,
        horizon: int | None = None,
        identifier: str | None = None,
        quantiles: Sequence[float] = (),
    ) -> Record:
        """Request a forecast from the champion; ``body`` has the form that `tail` returns."""
        request = dict(body)
        if quantiles:
            request["quantiles"] = list(quantiles)
        if horizon is not None:
            request["inference_length"] = horizon
        if identifier is not None:
            request["identifier"] = identifier
        return self._request("POST", "/predict", json=request)

    def dead_letter_groups(self) -> list[Record]:
        """Return each group with its dead letters by reason, and its account of each topic."""
        return list(self._request("GET", "/dead-letters")["groups"])

    def dead_letters(self, group: str, **choice: Any) -> Record:
        """Return one page of a group's dead letters, newest first."""
        params = {name: value for name, value in choice.items() if value is not None}
        return self._request("GET", f"/dead-letters/{_segment(group)}", params=params)

    def dead_letter(self, group: str, letter_id: str) -> Record:
        """Return one dead letter with its complete record."""
        return self._request("GET", f"/dead-letters/{_segment(group)}/{_segment(letter_id)}")

    def replay(self, group: str, body: Mapping[str, Any]) -> Record:
        """Make the gateway replay dead letters; the answer's `remaining` lists those that it had no time for."""
        path = f"/dead-letters/{_segment(group)}/replay"
        return self._request("POST", path, json=dict(body), timeout=max(self._timeout, REPLAY_SECONDS))

    def follow(
        self,
        run_id: str,
        *,
        on_break: Callable[[str], None] | None = None,
        timeout_seconds: float | None = None,
    ) -> Iterator[RunEvent]:
        """Yield a run's events until its end; a stream that breaks is opened again and begins with the event `state`.

        Raises
        ------
        ApiError
            If there is no such run.
        GatewayAwayError
            If the gateway does not answer for ``reconnect_seconds``.
        StillRunningError
            If the run has not ended after ``timeout_seconds``; checked at each line of the stream.
        """
        deadline = math.inf if timeout_seconds is None else time.monotonic() + timeout_seconds
        away_since: float | None = None
        tries = 0
        while True:
            try:
                for event in self._events(run_id, deadline):
                    away_since, tries = None, 0
                    yield event
                    if event.kind == "end":
                        return
                reason = "the stream ended"
            except GatewayAwayError as error:
                reason = error.message
                away_since = away_since if away_since is not None else time.monotonic()
                if time.monotonic() - away_since > self._reconnect_seconds:
                    raise
            if on_break is not None and tries == 0:
                on_break(reason)
            self._sleep(RECONNECT_SECONDS[min(tries, len(RECONNECT_SECONDS) - 1)])
            tries += 1

    def _events(self, run_id: str, deadline: float) -> Iterator[RunEvent]:
        timeout = httpx.Timeout(self._timeout, read=STREAM_SILENCE_SECONDS)
        with (
            self._reaching(),
            self._client.stream("GET", f"/runs/{_segment(run_id)}/events", timeout=timeout) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                answer.read()
                self._check(answer)
            yield from parse_events(_until(deadline, run_id, answer.iter_lines()))

    def _request(self, method: str, path: str, **arguments: Any) -> Record:
        with self._reaching():
            answer = self._client.request(method, path, **arguments)
        return self._check(answer)

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            msg = (
                f"no gateway answers at {self.url}; start one with `make demo` or `make embedded`, "
                "or name its address with --url or FLTS_URL"
            )
            raise GatewayAwayError(msg) from error
        except httpx.TimeoutException as error:
            msg = f"the gateway at {self.url} did not answer in time; FLTS_TIMEOUT_SECONDS gives it longer"
            raise GatewayAwayError(msg, code="gateway_slow") from error
        except httpx.HTTPError as error:
            msg = f"the connection to {self.url} broke ({type(error).__name__}); try again"
            raise GatewayAwayError(msg) from error

    def _check(self, answer: httpx.Response) -> Record:
        try:
            body = answer.json()
        except ValueError:
            body = None
        if answer.is_success and isinstance(body, dict):
            return body
        error = body.get("error") if isinstance(body, dict) else None
        if not isinstance(error, dict):
            msg = f"{self.url} answered {answer.status_code} and not as a gateway does; is --url right?"
            raise ApiError(msg, status=answer.status_code, code="not_a_gateway")
        message = str(error.get("message", ""))
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            message += "; give it with --api-key, --api-key-file or FLTS_API_KEY"
        raise ApiError(message, status=answer.status_code, code=error.get("code"), field=error.get("field"))


def check_url(url: str) -> str:
    """Return a gateway's address without a slash at its end.

    Raises
    ------
    GatewayAwayError
        If the text is not an http or https address.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        msg = f"{url!r} is not an address; --url takes one like http://127.0.0.1:8000"
        raise GatewayAwayError(msg, code="bad_url")
    return url.rstrip("/")


def _bad_url(url: str) -> GatewayAwayError:
    msg = f"{url!r} is not an address; --url takes one like http://127.0.0.1:8000"
    return GatewayAwayError(msg, code="bad_url")


def _until(deadline: float, run_id: str, lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if time.monotonic() > deadline:
            msg = f"run {run_id} has not ended in the time given; `flts follow {run_id}` goes on watching it"
            raise StillRunningError(msg)
        yield line


def parse_events(lines: Iterator[str]) -> Iterator[RunEvent]:
    """Yield the server-sent events in lines; skip comments and events whose data is not a JSON object."""
    kind, data = "", ""
    for line in lines:
        if line.startswith("event:"):
            kind = line.removeprefix("event:").strip()
        elif line.startswith("data:"):
            data += line.removeprefix("data:").strip()
        elif not line and kind:
            with contextlib.suppress(ValueError):
                value = json.loads(data)
                if isinstance(value, dict):
                    yield RunEvent(kind, value)
            kind, data = "", ""


def _segment(name: str) -> str:
    """Return a name as one segment of a path; slashes, ``..`` and special characters are escaped."""
    return quote(name, safe="").replace("..", "%2E%2E")


def _given(reason: str | None) -> dict[str, str]:
    return {"reason": reason} if reason else {}
