"""The check of MLflow when a service starts. It sends a plain request, because importing MLflow takes seconds."""

from __future__ import annotations

import base64
import json
import threading
import time
import urllib.error
import urllib.request
from urllib.parse import unquote, urlsplit, urlunsplit

from flts.errors import BackendAwayError
from flts.settings import TrackingSettings

PADDED_BYTES = 96 * 1024
"""Bytes of the search's body; a broken network path may pass 64 KiB before it stalls."""
STEP = f"search with a body of {PADDED_BYTES // 1024} KiB"
_SEARCH = "/api/2.0/mlflow/experiments/search"
_RETRY_SECONDS = 0.5
_ANSWERS = (200, 401)
"""HTTP statuses of a server that works; 401 too, because the MLflow client has its own credentials."""


def check_mlflow(settings: TrackingSettings, *, seconds: float, stop: threading.Event) -> None:
    """Search MLflow's experiments; retry while MLflow is away.

    Raises
    ------
    BackendAwayError
        If no search succeeded within ``seconds``; the message names the address and the step.
    """
    uri = settings.mlflow_tracking_uri
    if not uri.startswith(("http://", "https://")):
        return  # the client uses a folder or a database directly: there is no server to check
    address, credentials = _without_credentials(uri)
    attempts = _Attempts(address, credentials, time.monotonic() + seconds)
    # A server that answers byte by byte does not exceed the timeout of a request. So the check runs in a thread, and
    # its total time is limited here.
    thread = threading.Thread(target=attempts.run, name="mlflow-check", daemon=True)
    thread.start()
    while thread.is_alive() and time.monotonic() < attempts.deadline and not stop.wait(0.05):
        pass
    attempts.stop.set()
    if not attempts.answered:
        reason = f": {attempts.reason}" if attempts.reason else ""
        msg = f"mlflow {address}: '{STEP}' did not succeed within {seconds:g} s{reason}"
        raise BackendAwayError(msg, code="mlflow_away")


class _Attempts:
    def __init__(self, address: str, credentials: str | None, deadline: float) -> None:
        self.deadline = deadline
        self.stop = threading.Event()
        self.answered = False
        self.reason = ""
        self._address = address
        self._credentials = credentials

    def run(self) -> None:
        while not self.stop.is_set():
            self.reason = self._ask()
            if not self.reason:
                self.answered = True
                return
            if self.stop.wait(_RETRY_SECONDS):
                return

    def _ask(self) -> str:
        """Send one search; return the reason of its failure, or an empty text if it succeeded."""
        body = json.dumps({"max_results": 1}).encode().ljust(PADDED_BYTES)  # JSON ignores trailing blanks
        headers = {"content-type": "application/json"}
        if self._credentials is not None:
            headers["authorization"] = f"Basic {self._credentials}"
        request = urllib.request.Request(  # noqa: S310 - check_mlflow excludes other schemes
            f"{self._address.rstrip('/')}{_SEARCH}", data=body, headers=headers, method="POST"
        )
        left = max(0.1, self.deadline - time.monotonic())
        try:
            with urllib.request.urlopen(request, timeout=left) as answer:  # noqa: S310 - see above
                answer.read()
                return ""
        except urllib.error.HTTPError as error:
            text = error.read(200).decode(errors="replace")
            return "" if error.code in _ANSWERS else f"it answered {error.code}: {text}"
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            return f"{type(reason).__name__}: {reason}"


def _without_credentials(uri: str) -> tuple[str, str | None]:
    """Return the address without user and password, which may be logged, and both in base64, or None."""
    parts = urlsplit(uri)
    if parts.username is None:
        return uri, None
    host = parts.netloc.rpartition("@")[2]
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return urlunsplit(parts._replace(netloc=host)), base64.b64encode(credentials.encode()).decode()
