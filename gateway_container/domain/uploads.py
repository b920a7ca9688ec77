"""Read the fields of a request and make the event that starts a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import Cause, EvaluateRequest, RawData, RollbackRequest, Scalar
from flts.contracts.ids import derived_event_id
from flts.errors import RejectedError

StartingEvent = RawData | EvaluateRequest | RollbackRequest
"""The event that starts a run."""

LONGEST_REASON = 500
"""Characters; events contain the reason, and an event has at most 16 KiB."""
MOST_SETTINGS = 100
LONGEST_VALUE = 2000
MOST_SETTINGS_BYTES = 8 * 1024  # every event of the run contains the settings, and an event has at most 16 KiB


@dataclass(frozen=True, slots=True)
class StartRequest:
    """A request to start a run."""

    identifier: str
    settings: Mapping[str, Scalar]
    force: bool
    cause: Cause
    idempotency_key: str | None = None
    reason: str | None = None
    """The reason that the client gave."""
    replace: bool = False
    """Whether the upload may have other columns, another step or far fewer rows than the one before."""
    inherited: Mapping[str, Scalar] = field(default_factory=dict)
    """Settings of the upload that a retrain keeps; they are no part of the request, so a repeated one is the same."""

    @property
    def effective(self) -> dict[str, Scalar]:
        """Settings of the run: those of the request, and the inherited ones that it does not name."""
        return {**self.inherited, **self.settings}


def parse_overrides(text: str | None) -> dict[str, Scalar]:
    """Return a request's settings by the names of their environment variables.

    Raises
    ------
    RejectedError
        Unless the text is one JSON object of plain values with distinct names; ``field`` names the setting.
    """
    if text is None or not text.strip():
        return {}
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        msg = 'settings must be a JSON object, for example {"EPOCHS": 5}'
        raise RejectedError(msg, code="bad_settings", field="settings") from error
    return clean_overrides(value)


def clean_overrides(value: object) -> dict[str, Scalar]:
    """Return settings with names in capitals and plain values only.

    Raises
    ------
    RejectedError
        Code ``bad_settings`` or ``bad_setting``; ``field`` names the setting.
    """
    if not isinstance(value, dict):
        msg = 'settings must be a JSON object, for example {"EPOCHS": 5}'
        raise RejectedError(msg, code="bad_settings", field="settings")
    if len(value) > MOST_SETTINGS:
        msg = f"at most {MOST_SETTINGS} settings; got {len(value)}"
        raise RejectedError(msg, code="bad_settings", field="settings")
    cleaned: dict[str, Scalar] = {}
    for name, item in value.items():
        upper = str(name).upper()
        if upper in cleaned:
            msg = f"{upper} is given twice"
            raise RejectedError(msg, code="bad_setting", field=upper)
        if isinstance(item, list) and all(isinstance(part, str) for part in item):
            item = ",".join(item)  # noqa: PLW2901 - lists are written as A,B,C in the environment and in messages
        if not isinstance(item, (str, int, float, bool)) or (isinstance(item, str) and len(item) > LONGEST_VALUE):
            msg = f"{upper} must be a text of at most {LONGEST_VALUE} characters, a number, true or false"
            raise RejectedError(msg, code="bad_setting", field=upper)
        cleaned[upper] = item
    if len(json.dumps(cleaned).encode()) > MOST_SETTINGS_BYTES:
        msg = f"the settings of one run have at most {MOST_SETTINGS_BYTES} bytes"
        raise RejectedError(msg, code="bad_settings", field="settings")
    return cleaned


def parse_flag(text: str | None, *, field: str) -> bool:
    """Return the boolean of a form field; an empty or missing field is False.

    Raises
    ------
    RejectedError
        For any text but true, 1, yes, on, false, 0, no and off, in any case.
    """
    word = (text or "").strip().lower()
    if word in {"true", "1", "yes", "on"}:
        return True
    if word in {"", "false", "0", "no", "off"}:
        return False
    msg = f"{field} is true or false"
    raise RejectedError(msg, code="bad_value", field=field)


def raw_data_event(
    request: StartRequest,
    *,
    pipeline_run_id: str,
    train: ClaimCheck,
    test: ClaimCheck | None,
    created_at: datetime,
) -> RawData:
    """Return the event that starts a run; its event_id is derived from the run's id, so it is always the same."""
    return RawData(
        event_id=derived_event_id(pipeline_run_id, RawData.HEADER_EVENT),
        identifier=request.identifier,
        pipeline_run_id=pipeline_run_id,
        created_at=created_at,
        train=train,
        test=test,
        settings=request.effective,
        force=request.force,
        cause=request.cause,
        reason=request.reason,
    )


def parse_reason(text: str | None) -> str | None:
    """Return the reason of a request, or None if it has none.

    Raises
    ------
    RejectedError
        If it is too long.
    """
    reason = " ".join((text or "").split())
    if len(reason) > LONGEST_REASON:
        msg = f"a reason has at most {LONGEST_REASON} characters; got {len(reason)}"
        raise RejectedError(msg, code="bad_value", field="reason")
    return reason or None


def evaluate_request(
    *, identifier: str, of_run: str, pipeline_run_id: str, created_at: datetime, reason: str | None = None
) -> EvaluateRequest:
    """Return the event that starts a run in which eval evaluates another run's candidates again."""
    return EvaluateRequest(
        event_id=derived_event_id(pipeline_run_id, EvaluateRequest.HEADER_EVENT),
        identifier=identifier,
        pipeline_run_id=pipeline_run_id,
        created_at=created_at,
        of_run=of_run,
        reason=reason,
    )


def rollback_request(
    *, identifier: str, of_run: str | None, pipeline_run_id: str, created_at: datetime, reason: str | None = None
) -> RollbackRequest:
    """Return the event that starts a run in which eval makes an earlier champion the current one again."""
    return RollbackRequest(
        event_id=derived_event_id(pipeline_run_id, RollbackRequest.HEADER_EVENT),
        identifier=identifier,
        pipeline_run_id=pipeline_run_id,
        created_at=created_at,
        of_run=of_run,
        reason=reason,
    )


def starting_event(record: Mapping[str, Any]) -> StartingEvent:
    """Return the event that a run's record contains.

    Raises
    ------
    ValueError
        If the record is not an event that starts a run.
    """
    kinds: dict[str, type[StartingEvent]] = {"evaluate": EvaluateRequest, "rollback": RollbackRequest}
    kind: type[StartingEvent] = RawData if "train" in record else kinds.get(str(record.get("cause")), RawData)
    return kind.model_validate(record)


def _no_constant(name: str) -> float:
    msg = f"{name} is not JSON"
    raise ValueError(msg)
