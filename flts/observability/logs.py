"""Logs: JSON lines on standard output. The event of a line is a constant string, and its data are fields."""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

from pydantic import BaseModel, SecretStr

from flts.observability.tracing import current_trace

MAX_TEXT = 8_000
"""Characters kept of an event, of an error and its traceback (the end), and of a value that JSON does not have."""
SECRET_NAMES = re.compile(r"(password|passwd|secret|token|api_?key|authorization|credential)", re.IGNORECASE)
MIN_SECRET = 4
"""Characters; a shorter secret is not masked, because its text is part of ordinary words."""
HIDDEN = "***"
_USERINFO_AT = re.compile(r"(?<=://)[^/\s]*@")
_USERINFO = re.compile(r"://([^/\s]+)@")

_bound: ContextVar[Mapping[str, Any]] = ContextVar("flts_log_fields", default={})  # noqa: B039 - the mapping is replaced and never changed


class Log:
    """A module's logger: ``log.info("train_success", run_id=run_id)``."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: Any) -> None:
        """Log an event that only a developer needs."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Log a normal event."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log a warning; ``error=exception`` adds its class, message and traceback."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log an error that needs an action; ``error=exception`` adds its class, message and traceback."""
        self._log(logging.ERROR, event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """Log the exception that is being handled, with its class, message and traceback."""
        self._log(logging.ERROR, event, {"error": sys.exc_info()[1], **fields})

    def _log(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", event, extra={"flts_fields": fields})


def get_logger(name: str) -> Log:
    """Return the logger of a module (``__name__``)."""
    return Log(name)


@contextmanager
def bind(**fields: Any) -> Iterator[None]:
    """Add fields to every line that this thread or task logs inside the ``with`` block; None is left out."""
    known = {name: value for name, value in fields.items() if value is not None}
    token = _bound.set({**_bound.get(), **known})
    try:
        yield
    finally:
        _bound.reset(token)


def bound_fields() -> dict[str, Any]:
    """Return the bound fields of this thread or task, for example to send them to a child process."""
    return dict(_bound.get())


def configure_logs(
    service: str, level: str = "INFO", *, secrets: Iterable[str] = (), stream: TextIO | None = None
) -> None:
    """Write every log line of this process, also of libraries, as JSON to standard output.

    Parameters
    ----------
    service : str
        The field ``service`` of every line.
    level : str
        Least severe level that is logged. Libraries log at WARNING or above.
    secrets : iterable of str
        Values that are masked in every line.
    stream : TextIO, optional
        Written to instead of standard output.
    """
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonFormatter(service, secrets))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))
    for name in ("flts", "cli", "embedded", *_SERVICES):
        logging.getLogger(name).setLevel(level)
    for name in list(logging.root.manager.loggerDict):
        # A library with its own handlers (uvicorn) would write lines that are not JSON. Without its handlers its
        # records reach the root handler.
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    # Requests are not logged: the load balancer can log them, and /metrics counts them.
    logging.getLogger("uvicorn.access").disabled = True
    logging.captureWarnings(capture=True)


_SERVICES = (
    "preprocess_container",
    "train_container",
    "nonML_container",
    "eval_container",
    "inference_container",
    "gateway_container",
    "__main__",
)


def secret_values(settings: BaseModel) -> list[str]:
    """Return the values of a settings object that must be masked in log lines.

    A secret with commas may be a list (``GATEWAY_API_KEY``), so each part is a secret too. The ``user:password`` of an
    address is also a secret.
    """
    secrets: list[str] = []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            whole = value.get_secret_value()
            secrets += dict.fromkeys((whole, *(part.strip() for part in whole.split(","))))
        elif isinstance(value, str):
            secrets += _USERINFO.findall(value)
    return [secret for secret in secrets if len(secret) >= MIN_SECRET]


def without_userinfo(text: str) -> str:
    """Return the text without the ``user:password@`` of its addresses."""
    return _USERINFO_AT.sub("", text)


class JsonFormatter(logging.Formatter):
    """Formats a log record as one line of JSON."""

    def __init__(self, service: str, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._service = service
        # A line is JSON, so secrets are escaped as in JSON. The longest secret is masked first: a list of keys contains
        # each single key, and the list is no longer found once one of its keys was masked.
        shown = sorted((secret for secret in secrets if len(secret) >= MIN_SECRET), key=len, reverse=True)
        self._secrets = [json.dumps(secret, ensure_ascii=False)[1:-1] for secret in shown]

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without a newline."""
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "event": record.getMessage()[:MAX_TEXT],
            "logger": record.name,
        }
        fields: dict[str, Any] = dict(_bound.get())
        trace = current_trace()
        if trace is not None:
            fields["trace_id"] = trace.trace_id
        fields.update(getattr(record, "flts_fields", {}))
        if record.exc_info and record.exc_info[1] is not None:
            fields.setdefault("error", record.exc_info[1])
        if isinstance(fields.get("error"), BaseException):
            fields.update(error_fields(fields["error"]))
        for name, value in fields.items():
            line.setdefault(name, HIDDEN if SECRET_NAMES.search(name) else value)
        text = _to_json(line)
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text


def error_fields(error: BaseException) -> dict[str, str]:
    """Return an exception as the fields ``error``, ``error_code`` and ``traceback``."""
    message = str(error)
    fields = {
        "error": f"{type(error).__name__}: {message}" if message else type(error).__name__,
        "error_code": str(getattr(error, "code", type(error).__name__)),
        "traceback": traceback_of(error),
    }
    return {name: value[-MAX_TEXT:] for name, value in fields.items() if value}


def traceback_of(error: BaseException) -> str:
    """Return an exception's traceback; for an exception from a child process, the child's traceback."""
    remote = getattr(error, "remote_traceback", None)
    if isinstance(remote, str):
        return remote
    if error.__traceback__ is None:
        return ""
    return "".join(traceback.format_exception(error))


def _to_json(line: dict[str, Any]) -> str:
    try:
        return json.dumps(line, default=_plain, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError):  # a value contains a NaN, a cycle, or a key that JSON does not have
        return json.dumps(_finite(line), default=_plain, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "size", None) == 1:  # a numpy scalar becomes a Python number
        return _finite(item())
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return str(value)[:MAX_TEXT]


def _finite(value: Any, depth: int = 0) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth > 8:  # noqa: PLR2004 - deeper than any field of FLTS, so it is a cycle
        return str(value)[:MAX_TEXT]
    if isinstance(value, Mapping):
        return {str(key): _finite(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner, depth + 1) for inner in value]
    return value
