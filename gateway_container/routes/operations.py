"""Operations: delete a data set, preview or run the janitor, list operations and their reasons."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from flts.contracts.ids import check_identifier
from gateway_container.context import gateway_of
from gateway_container.domain.uploads import LONGEST_REASON
from gateway_container.security import api_key_scheme, require_key

router = APIRouter(tags=["operation"])
WRITE = [Depends(api_key_scheme), Depends(require_key)]
Reason = Annotated[str | None, Query(max_length=LONGEST_REASON, description="Reason, kept with the record")]


@router.delete("/datasets/{identifier}", dependencies=WRITE, summary="Delete a data set everywhere")
def delete(
    identifier: str, request: Request, *, dry_run: bool = False, cancel: bool = False, reason: Reason = None
) -> dict[str, Any]:
    """Remove uploads, data, bundles, pointers, runs, logs and keys; 409 if a run is unfinished and `cancel` not set."""
    deleting = gateway_of(request).deleting
    check_identifier(identifier)
    if dry_run:
        return deleting.plan(identifier)
    return deleting.delete(identifier, cancel=cancel, reason=reason)


@router.get("/janitor", summary="What a round of the janitor would remove, and why")
def janitor_plan(request: Request) -> dict[str, Any]:
    """Return the runs and objects that a round would remove, by identifier; nothing is changed."""
    removals = [removal.view() for removal in gateway_of(request).janitor.plan()]
    return {"dry_run": True, "removals": [view for view in removals if view["runs"] or view["objects"]]}


@router.post("/janitor", dependencies=WRITE, summary="Have the janitor do a round now")
def janitor_round(request: Request, reason: Reason = None) -> dict[str, Any]:
    """Remove the runs and objects that `GET /janitor` lists; 409 while another round runs."""
    gateway = gateway_of(request)
    removals = [removal.view() for removal in gateway.janitor.round()]
    gone = [view for view in removals if view["runs"] or view["objects"]]
    gateway.operations.done(
        "janitor",
        reason=reason,
        runs=sum(len(view["runs"]) for view in gone),
        objects=sum(view["run_objects"] + sum(group["objects"] for group in view["objects"]) for view in gone),
    )
    return {"dry_run": False, "removals": gone}


@router.get("/operations", summary="What people did, newest first, and why")
def operations(
    request: Request,
    identifier: str | None = None,
    pipeline_run_id: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
) -> dict[str, Any]:
    """Return the operations on an identifier or one of its runs; else those on none, such as rounds of the janitor."""
    gateway = gateway_of(request)
    if identifier is None:
        return {"operations": gateway.operations.of(None, limit=limit), "deletion": None}
    check_identifier(identifier)
    found = gateway.operations.of(identifier, pipeline_run_id=pipeline_run_id, limit=limit)
    return {"operations": found, "deletion": gateway.deleting.state(identifier)}
