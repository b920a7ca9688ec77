"""A promotion: the content of an identifier's pointer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from flts.contracts.champion_stage import stage_of
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import Uuid
from flts.errors import RejectedError

_RUN: TypeAdapter[str] = TypeAdapter(Uuid)  # accepts only a UUID, because the id becomes part of a path


@dataclass(frozen=True, slots=True)
class Promotion:
    """The content of a pointer: the bundle of an identifier's champion, and its score."""

    identifier: str
    run_id: str
    model_type: str
    config_hash: str
    pipeline_run_id: str
    bundle: ClaimCheck
    document: Mapping[str, Any]
    """The stored pointer; the fetching child adds the decision's scores."""

    @staticmethod
    def read(identifier: str, document: Mapping[str, Any]) -> Promotion:
        """Read a pointer.

        Raises
        ------
        RejectedError
            ``bad_pointer`` if a field is missing or malformed.
        """
        try:
            return Promotion(
                identifier=identifier,
                run_id=str(document["run_id"]),
                model_type=str(document["model_type"]),
                config_hash=str(document["config_hash"]),
                pipeline_run_id=_RUN.validate_python(document["pipeline_run_id"]),
                bundle=ClaimCheck.model_validate(document["bundle"]),
                document=document,
            )
        except (KeyError, ValueError, TypeError) as error:
            msg = f"the pointer of {identifier} cannot be read: {error!r}"[:500]
            raise RejectedError(msg, code="bad_pointer", field="identifier") from error

    @property
    def stage(self) -> str:
        """Stage of the champion."""
        return stage_of(self.document)

    @property
    def horizon_steps(self) -> int | None:
        """Steps ahead that the champion was judged at; None if its pointer has none, as those of earlier releases."""
        steps = self.document.get("horizon_steps")
        return steps if isinstance(steps, int) and steps > 0 else None

    @property
    def baseline(self) -> str | None:
        """Why a baseline is served; None for a model that passed the gate."""
        reason = self.document.get("baseline")
        return reason if isinstance(reason, str) else None

    def describe(self) -> dict[str, Any]:
        """Return the pointer's fields of ``GET /models``; the optional ones only if the pointer has them."""
        names = ("run_id", "model_type", "config_hash", "score", "rmse", "mae", "pipeline_run_id", "model_uri")
        shown = {name: self.document.get(name) for name in names}
        if self.document.get("stage"):
            shown["stage"] = self.stage
        if self.horizon_steps is not None:
            shown["horizon_steps"] = self.horizon_steps
        if self.baseline is not None:
            shown["baseline"] = self.baseline
        return {"identifier": self.identifier, **shown, "promoted": self.document.get("timestamp")}
