"""`flts doctor`: diagnose each backend step by step from this machine, with one remedy per failure."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic_settings import EnvSettingsSource

from cli.commands import FAILED, OK, show
from cli.settings import CliSettings
from cli.text import table
from flts.diagnosis import web
from flts.diagnosis.steps import Backend, Finding, Step, examine
from flts.errors import RejectedError
from flts.observability.logs import without_userinfo
from flts.settings import KafkaSettings, Settings, StoreSettings, TrackingSettings, describe_problems

MASKED = "********"
DEFAULT_INFERENCE_URL = "http://127.0.0.1:30080"
ADDRESSES = {
    "kafka": "KAFKA_BOOTSTRAP_SERVERS",
    "store": "MLFLOW_S3_ENDPOINT_URL",
    "mlflow": "MLFLOW_TRACKING_URI",
    "gateway": "FLTS_URL",
    "inference": "INFERENCE_URL",
}
SIGNS = {"ok": "ok", "failed": "FAILED", "skipped": "-"}


class InferenceAddress(Settings):
    """The address of the inference service, and its key."""

    inference_url: str = DEFAULT_INFERENCE_URL
    """Address of the inference service."""
    inference_api_key: SecretStr | None = None
    """Key of /predict and /models, if the service requires one."""


def add_arguments(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Declare the command."""
    command("doctor", "Look at broker, store, MLflow, gateway and inference step by step, from here")


def doctor(settings: CliSettings, arguments: argparse.Namespace) -> int:
    """Examine every backend; return 1 if a step failed."""
    embedded = _embedded(settings)
    chosen = [_Chosen(*one, embedded) for one in _classes(settings)]
    with _quiet_clients():
        findings = examine(_backends(settings, {one.name: one for one in chosen}, embedded=bool(embedded)))
    shown = [row for one in chosen for row in one.rows()] + _own_rows(settings)
    failed = any(finding.status == "failed" for finding in findings)
    answer = {
        "healthy": not failed,
        "embedded": bool(embedded),
        "findings": [finding.view() for finding in findings],
        "settings": {name: {"value": value, "from": source} for name, value, source in shown},
    }
    show(arguments, answer, [*finding_lines(findings), "", *setting_lines(shown)])
    return FAILED if failed else OK


@contextmanager
def _quiet_clients() -> Iterator[None]:
    """Disable logging, because the findings contain the clients' errors."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def finding_lines(findings: list[Finding]) -> list[str]:
    """Return the findings as a table, then one remedy per failure, or one line if no step failed."""
    rows = [(one.backend, one.step, SIGNS[one.status], _milliseconds(one.milliseconds), one.detail) for one in findings]
    lines = table(("backend", "step", "", "ms", "found"), rows, right=("ms",))
    failures = [one for one in findings if one.status == "failed"]
    remedies = [f"! {one.backend} at {one.address}, {one.step}: {one.remedy}" for one in failures]
    return [*lines, "", *(remedies or ["every backend that is known here answers"])]


def setting_lines(rows: list[tuple[str, str, str]]) -> list[str]:
    """Return the effective settings as a table."""
    return table(("setting", "value", "from"), rows)


class _Chosen:
    """Settings of one class: from the environment, else from the running embedded mode, else the default."""

    def __init__(
        self, name: str, kind: type[Settings], needed: str, fallback: Mapping[str, Any], embedded: Mapping[str, Any]
    ) -> None:
        self.name = name
        self.needed = needed
        """The variable that holds this backend's address."""
        self._given = set(EnvSettingsSource(kind)())
        self._kind = kind
        self._state = {field: value for field, value in fallback.items() if embedded and field not in self._given}
        self.problems: list[str] = []
        self.settings: Any = None
        try:
            self.settings = kind(**self._state)
        except ValidationError as error:
            self.problems = describe_problems(error)

    @property
    def given(self) -> bool:
        """Whether the environment sets a variable of this class."""
        return bool(self._given)

    def rows(self) -> list[tuple[str, str, str]]:
        """Return name, masked value and source of each setting."""
        if self.settings is None:
            return []
        return [
            (field.upper(), _masked(getattr(self.settings, field)), self._source(field)) for field in self._fields()
        ]

    def _fields(self) -> list[str]:
        return list(self._kind.model_fields)

    def _source(self, field: str) -> str:
        if field in self._given:
            return "environment"
        return "embedded.json" if field in self._state else "default"


def _classes(settings: CliSettings) -> list[tuple[str, type[Settings], str, dict[str, Any]]]:
    state = _embedded(settings)
    home = settings.flts_home
    return [
        ("kafka", KafkaSettings, "KAFKA_BOOTSTRAP_SERVERS", {"kafka_bootstrap_servers": state.get("kafka")}),
        (
            "store",
            StoreSettings,
            "MLFLOW_S3_ENDPOINT_URL (or STORE=filesystem and STORE_PATH)",
            {"store": state.get("store", "filesystem"), "store_path": state.get("store_path", home / "store")},
        ),
        ("mlflow", TrackingSettings, "MLFLOW_TRACKING_URI", {"mlflow_tracking_uri": state.get("mlflow_url")}),
        ("inference", InferenceAddress, "INFERENCE_URL", {"inference_url": state.get("inference_url")}),
    ]


def _backends(settings: CliSettings, chosen: Mapping[str, _Chosen], *, embedded: bool) -> list[Backend]:
    kafka, store = chosen["kafka"].settings, chosen["store"].settings
    backends = []
    makers: tuple[tuple[str, Callable[[], Backend]], ...] = (
        ("kafka", lambda: _broker(kafka, _start("kafka", settings, embedded=embedded))),
        ("store", lambda: _store(store, kafka, _start("store", settings, embedded=embedded))),
        (
            "mlflow",
            lambda: web.mlflow(
                chosen["mlflow"].settings.mlflow_tracking_uri, start=_start("mlflow", settings, embedded=embedded)
            ),
        ),
    )
    for name, make in makers:
        one = chosen[name]
        if one.settings is None:
            backends.append(_unknown(one))
        else:
            backends.append(_told(name, make))
    start = _start("fastapi-app", settings, embedded=embedded)
    backends.append(_told("gateway", lambda: web.gateway(settings.url(), settings.api_key(), start=start)))
    address = chosen["inference"].settings
    key = address.inference_api_key.get_secret_value() if address.inference_api_key else None
    starts = _start("inference", settings, embedded=embedded)
    backends.append(_told("inference", lambda: web.inference(address.inference_url, key, start=starts)))
    return backends


def _unknown(chosen: _Chosen) -> Backend:
    """Return the backend for settings that are missing (it is skipped) or wrong (its only step fails)."""
    if not chosen.given:
        return Backend(chosen.name, "", why_not=f"not looked at: {chosen.needed} is not set here")
    return _wrong(chosen.name, "; ".join(chosen.problems))


def _told(name: str, make: Callable[[], Backend]) -> Backend:
    try:
        return make()
    except ValueError as error:  # the setting is not a valid address, so doctor reports that
        return _wrong(name, str(error))


def _wrong(name: str, problem: str) -> Backend:
    def refuse() -> str:
        raise RejectedError(problem, code="wrong_setting")

    setting = ADDRESSES[name]
    return Backend(name, "", [Step("setting", refuse, lambda _: f"correct it; {setting} says where {name} is")])


def _broker(settings: KafkaSettings, start: str) -> Backend:
    try:
        from flts.diagnosis.broker import broker  # noqa: PLC0415 - `flts` may be installed without Kafka's client
    except ImportError:
        return Backend("kafka", settings.kafka_bootstrap_servers, why_not="not looked at: install flts[kafka] for it")
    return broker(settings, start=start)


def _store(settings: StoreSettings, kafka: KafkaSettings | None, start: str) -> Backend:
    try:
        from flts.diagnosis.store import object_store  # noqa: PLC0415 - `flts` may be installed without S3's client

        return object_store(settings, kafka.namespace_prefix if kafka else "", start=start)
    except ImportError:
        return Backend("store", "", why_not="not looked at: install flts[store] for it")


def _start(program: str, settings: CliSettings, *, embedded: bool) -> str:
    if not embedded:
        return "start it (`make demo` or `make embedded` start everything on this machine)"
    if program == "store":
        return "end `make demo` and start it again"
    return f"see {settings.flts_home / 'logs' / program}.log, and start `make demo` or `make embedded` again"


def _embedded(settings: CliSettings) -> dict[str, Any]:
    try:
        state = json.loads((settings.flts_home / "embedded.json").read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _own_rows(settings: CliSettings) -> list[tuple[str, str, str]]:
    key = settings.api_key()
    return [
        ("FLTS_URL", without_userinfo(settings.url()), "environment" if settings.flts_url else "found"),
        ("FLTS_HOME", str(settings.flts_home), "found"),
        ("FLTS_API_KEY", MASKED if key else "unset", "found" if key else "default"),
    ]


def _masked(value: object) -> str:
    if isinstance(value, SecretStr):
        return MASKED
    return "unset" if value is None or value == "" else without_userinfo(str(value))


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"
