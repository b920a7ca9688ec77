"""Dead letters: count, list, show, replay. All routes need the key, because letters contain uploaded content."""

from __future__ import annotations

from typing import Annotated, Any, Self

import anyio.to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gateway_container.context import gateway_of
from gateway_container.dead_letters import Choice, ReplayRequest
from gateway_container.domain.uploads import LONGEST_REASON
from gateway_container.receive import LONGEST_FIELD_BYTES, receive_bytes
from gateway_container.security import api_key_scheme, require_key

router = APIRouter(
    prefix="/dead-letters", tags=["dead letters"], dependencies=[Depends(api_key_scheme), Depends(require_key)]
)
MOST_LETTERS = 1_000
DEFAULT_LETTERS = 100


class Replay(BaseModel):
    """The letters to replay: exactly one of ``ids``, ``all`` and ``error_code``."""

    model_config = ConfigDict(extra="forbid")

    ids: list[str] | None = Field(default=None, min_length=1, max_length=MOST_LETTERS)
    all: bool = False
    """All letters that wait, oldest first."""
    error_code: str | None = Field(default=None, max_length=200)
    """All letters that wait and have this reason, oldest first."""
    limit: int = Field(default=DEFAULT_LETTERS, ge=1, le=MOST_LETTERS)
    rate: float | None = Field(default=None, gt=0)
    """Letters a second; at most REPLAY_PER_SECOND."""
    again: bool = False
    """Also letters that were replayed before."""
    force: bool = False
    """Also letters that are refused because their run has ended."""
    reason: str | None = Field(default=None, max_length=LONGEST_REASON)
    by: str | None = Field(default=None, max_length=100)
    """The name that the client gives."""

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if sum((self.ids is not None, self.all, self.error_code is not None)) != 1:
            msg = "say which letters: one of ids, all and error_code"
            raise ValueError(msg)
        return self


@router.get("", summary="Each group: its dead letters by reason, and sent = done + in flight + dead letters")
def groups(request: Request) -> dict[str, Any]:
    """Return the groups with their dead letters and their account of each topic."""
    return {"groups": gateway_of(request).dead_letters.groups()}


@router.get("/{group}", summary="A group's dead letters, newest first")
def list_letters(
    group: str,
    request: Request,
    *,
    error_code: str | None = None,
    identifier: str | None = None,
    topic: str | None = None,
    waiting: bool = False,
    limit: Annotated[int, Query(ge=1, le=MOST_LETTERS)] = 50,
    after: str | None = None,
) -> dict[str, Any]:
    """Return one page; its `next` is the `after` of the following page. `waiting`: only letters not replayed."""
    choice = Choice(error_code, identifier, topic, waiting)
    return gateway_of(request).dead_letters.page(group, choice, limit=limit, after=after)


@router.get("/{group}/{letter_id}", summary="A dead letter, whole")
def show(group: str, letter_id: str, request: Request) -> JSONResponse:
    """Return the record as the service read it, the error, the traceback and the replay."""
    return JSONResponse(gateway_of(request).dead_letters.show(group, letter_id))


@router.post(
    "/{group}/replay",
    openapi_extra={
        "requestBody": {"content": {"application/json": {"schema": Replay.model_json_schema()}}, "required": True}
    },
    summary="Send dead letters to their group again",
)
async def replay(group: str, request: Request) -> JSONResponse:
    """Send letters to this group only; `remaining` lists the letters beyond the limit or the time of one call."""
    gateway = gateway_of(request)
    body = await receive_bytes(
        request.stream(),
        limit=LONGEST_FIELD_BYTES,
        idle_seconds=gateway.settings.upload_idle_seconds,
        field_name="body",
        setting="fixed",
    )
    try:
        asked = Replay.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_context=False)) from error
    wanted = ReplayRequest(
        ids=None if asked.ids is None else tuple(asked.ids),
        choice=Choice(error_code=asked.error_code, waiting=not asked.again),
        limit=len(asked.ids) if asked.ids is not None else asked.limit,
        rate=asked.rate,
        again=asked.again,
        force=asked.force,
        reason=asked.reason,
        by=asked.by,
    )
    return JSONResponse(await anyio.to_thread.run_sync(gateway.dead_letters.replay, group, wanted))
