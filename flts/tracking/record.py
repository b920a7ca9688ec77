"""Documents for MLflow. A run's document is in memory, and is spooled as a whole if MLflow is unavailable."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from flts.contracts.claim_check import ClaimCheck
from flts.contracts.ids import canonical_json
from flts.errors import RejectedError
from flts.storage.keys import check_key

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
MAX_TEXT = 5000
"""Characters of a parameter or tag; MLflow refuses a longer text."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One value of a metric. MLflow stores it once if it is sent again with the same step and time."""

    name: str
    value: float
    step: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of a run: its bytes, or the claim check of an object with the bytes."""

    path: str
    data: bytes | None = None
    claim: ClaimCheck | None = None


@dataclass(frozen=True, slots=True)
class Registration:
    """The model version to create from a run."""

    model_type: str
    """Also the folder in the run's artifacts that contains the copy of the bundle."""
    tags: dict[str, str]


@dataclass(slots=True)
class RunDocument:
    """All that MLflow is to record of a run."""

    run_id: str
    experiment: str
    name: str
    start_ms: int
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[Metric] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)
    registration: Registration | None = None
    status: RunStatus | None = None
    """None while the run continues, and in an addition to a run that another process ends."""
    end_ms: int | None = None

    def add_metrics(self, values: Mapping[str, float | None], step: int, time_ms: int) -> None:
        """Add the values of a step; None is omitted."""
        self.metrics.extend(
            Metric(name, float(value), step, time_ms) for name, value in values.items() if value is not None
        )

    def add_artifact(self, artifact: Artifact) -> None:
        """Add a file.

        Raises
        ------
        RejectedError
            If its path is not a valid relative path.
        """
        check_key(artifact.path)
        self.artifacts.append(artifact)

    def to_json(self) -> bytes:
        """Return the document as it is spooled."""
        return canonical_json(
            {
                "v": 1,
                "kind": "run",
                "run_id": self.run_id,
                "experiment": self.experiment,
                "name": self.name,
                "start_ms": self.start_ms,
                "end_ms": self.end_ms,
                "status": self.status,
                "params": self.params,
                "tags": self.tags,
                # A value that is not finite, such as a diverged loss, becomes text, because JSON has no NaN.
                "metrics": [
                    [one.name, one.value if math.isfinite(one.value) else str(one.value), one.step, one.time_ms]
                    for one in self.metrics
                ],
                "artifacts": [_artifact_to_json(artifact) for artifact in self.artifacts],
                "registration": self.registration
                and {"model_type": self.registration.model_type, "tags": self.registration.tags},
            }
        )


@dataclass(frozen=True, slots=True)
class ChampionDocument:
    """The run whose model version is to get the alias ``champion``."""

    experiment: str
    run_id: str

    def to_json(self) -> bytes:
        """Return the document as it is spooled."""
        return canonical_json({"v": 1, "kind": "champion", "experiment": self.experiment, "run_id": self.run_id})


@dataclass(frozen=True, slots=True)
class ForgetDocument:
    """The deletion of an identifier: MLflow is to delete the runs and model versions that are older than a run."""

    experiment: str
    before: str
    """A pipeline_run_id; runs with smaller ids are older."""

    @property
    def run_id(self) -> str:
        """Return `before`; every document has a ``run_id``, which log events contain."""
        return self.before

    def to_json(self) -> bytes:
        """Return the document as it is spooled."""
        return canonical_json({"v": 1, "kind": "forget", "experiment": self.experiment, "before": self.before})


Document = RunDocument | ChampionDocument | ForgetDocument


def document_from_json(data: bytes) -> Document:
    """Return a spooled document.

    Raises
    ------
    RejectedError
        With code ``bad_document`` if it is not such a document.
    """
    try:
        values = json.loads(data)
        return _READERS[values["v"], values["kind"]](values)
    except (KeyError, TypeError, ValueError, binascii.Error, ValidationError) as error:
        msg = f"this is no document for MLflow: {error}"
        raise RejectedError(msg, code="bad_document") from error


def _champion_from_json(values: Mapping[str, Any]) -> ChampionDocument:
    return ChampionDocument(str(values["experiment"]), str(values["run_id"]))


def as_texts(values: Mapping[str, object]) -> dict[str, str]:
    """Return parameters or tags as texts of at most `MAX_TEXT` characters; None is omitted."""
    return {name: str(value)[:MAX_TEXT] for name, value in values.items() if value is not None}


def _run_from_json(values: Mapping[str, Any]) -> RunDocument:
    registration = values["registration"]
    return RunDocument(
        run_id=str(values["run_id"]),
        experiment=str(values["experiment"]),
        name=str(values["name"]),
        start_ms=int(values["start_ms"]),
        end_ms=values["end_ms"],
        status=values["status"],
        params=dict(values["params"]),
        tags=dict(values["tags"]),
        metrics=[Metric(str(name), float(value), int(step), int(at)) for name, value, step, at in values["metrics"]],
        artifacts=[_artifact_from_json(artifact) for artifact in values["artifacts"]],
        registration=registration and Registration(registration["model_type"], dict(registration["tags"])),
    )


def _artifact_to_json(artifact: Artifact) -> dict[str, Any]:
    if artifact.claim is not None:
        return {"path": artifact.path, "claim": artifact.claim.model_dump(mode="json")}
    return {"path": artifact.path, "data": base64.b64encode(artifact.data or b"").decode()}


def _artifact_from_json(values: Mapping[str, Any]) -> Artifact:
    path = check_key(values["path"])
    if "claim" in values:
        return Artifact(path, claim=ClaimCheck.model_validate(values["claim"]))
    return Artifact(path, data=base64.b64decode(values["data"], validate=True))


def _forget_from_json(values: Mapping[str, Any]) -> ForgetDocument:
    return ForgetDocument(str(values["experiment"]), str(values["before"]))


_READERS: dict[tuple[int, str], Callable[[Mapping[str, Any]], Document]] = {
    (1, "run"): _run_from_json,
    (1, "champion"): _champion_from_json,
    (1, "forget"): _forget_from_json,
}
