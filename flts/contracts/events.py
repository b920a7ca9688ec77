"""The events, one frozen class each. An event states a fact; its producer does not depend on its consumers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from flts.contracts.claim_check import ClaimCheck
from flts.contracts.ids import IDENTIFIER_PATTERN

Scalar = str | int | float | bool
Identifier = Annotated[str, Field(pattern=f"^{IDENTIFIER_PATTERN.pattern}$")]
Uuid = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
RunId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ModelType = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,31}$")]
Cause = Literal["upload", "retrain", "job", "replay", "evaluate", "rollback"]


class Event(BaseModel):
    """What every message carries."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null", use_attribute_docstrings=True)

    v: Literal[1] = 1
    """Schema version; optional fields are added without raising it."""
    event_id: Uuid
    """UUIDv5 of the input's event_id and the kind of output, so that a repetition derives the same id."""
    identifier: Identifier
    """The series set; also the message's key."""
    pipeline_run_id: Uuid
    """UUIDv7 of the execution from raw data to decision."""
    config_hash: Sha256 | None = None
    """Null until preprocess has computed it."""
    created_at: datetime

    def header_event(self) -> str:
        """Return the word that the header ``event`` carries."""
        return self.HEADER_EVENT

    HEADER_EVENT: ClassVar[str]


class Sampling(BaseModel):
    """How rows were sampled, in preprocess and nowhere else."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    strategy: Literal["head", "random"]
    original_rows: int
    sampled_rows: int
    seed: int


class RawData(Event):
    """A data set was stored; a pipeline run on it was started."""

    HEADER_EVENT = "raw-claim"

    train: ClaimCheck
    test: ClaimCheck | None = None
    settings: dict[str, Scalar] = {}
    """Overrides of recipe and training settings, by their environment names."""
    force: bool = False
    cause: Cause = "upload"
    reason: str | None = Field(default=None, max_length=500)
    """The reason that the person who started the run gave."""


class TrainingData(Event):
    """A data set was cleaned, split and stored; it is ready to train on."""

    HEADER_EVENT = "train-claim"

    bucket: str
    object_key: str
    size: int
    sha256: Sha256
    rows: int
    columns: int
    meta: ClaimCheck
    """The fitted recipe and the report of preprocessing (JSON)."""
    test: ClaimCheck
    """The processed test rows."""
    raw_test: ClaimCheck
    """The test rows in raw units, after context rows from the end of the training part."""
    raw_test_context_rows: int
    """How many leading rows of ``raw_test`` are context and never scored."""
    step_seconds: int
    sampling: Sampling | None = None
    test_sampling: Sampling | None = None
    settings: dict[str, Scalar] = {}
    force: bool = False
    cause: Cause = "upload"

    def claim(self) -> ClaimCheck:
        """Return the claim of the processed training rows."""
        return ClaimCheck(
            bucket=self.bucket,
            object_key=self.object_key,
            size=self.size,
            sha256=self.sha256,
            rows=self.rows,
            columns=self.columns,
        )


class InferenceData(TrainingData):
    """The test rows of a run are ready to be forecast; the flat claim is the processed test rows."""

    HEADER_EVENT = "inference-claim"


class ModelTraining(Event):
    """A trainer ended, with a bundle or with an error."""

    model_type: ModelType
    status: Literal["SUCCESS", "FAILED"]
    run_id: RunId
    mlflow_run_id: str | None = None
    experiment_name: str
    model_uri: str | None = None
    bundle: ClaimCheck | None = None
    """The claim of ``bundle.json``, which names and hashes ``model.onnx`` beside it."""
    train: ClaimCheck
    test: ClaimCheck
    metrics: dict[str, float | None] = {}
    duration_seconds: float
    error: str | None = Field(default=None, max_length=2000)
    reused: bool = False
    """A verified bundle of an earlier run was announced again."""

    HEADER_EVENT = "trained"

    def header_event(self) -> str:
        """Return ``trained-<MODEL_TYPE>``."""
        return f"trained-{self.model_type}"


class EvaluateRequest(Event):
    """A person asked to judge another run's candidates again."""

    HEADER_EVENT = "evaluate"

    of_run: Uuid
    cause: Cause = "evaluate"
    reason: str | None = Field(default=None, max_length=500)
    """Why, in the words of whoever asked."""


class RollbackRequest(Event):
    """A person asked to make an earlier champion the current one again."""

    HEADER_EVENT = "rollback"

    of_run: Uuid | None = None
    """The run whose champion returns; null means the predecessor of the current one."""
    cause: Cause = "rollback"
    reason: str | None = Field(default=None, max_length=500)
    """Why, in the words of whoever asked."""


class ModelSelected(Event):
    """Eval decided a pipeline run."""

    HEADER_EVENT = "promotion"

    decision: Literal["promoted", "kept", "refused", "superseded"]
    run_id: RunId | None = None
    model_type: ModelType | None = None
    model_uri: str | None = None
    bundle: ClaimCheck | None = None
    score: float | None = None
    rmse: float | None = None
    mae: float | None = None
    mse: float | None = None
    weights: dict[str, float] = {}
    previous_run_id: RunId | None = None
    scoreboard: ClaimCheck | None = None
    reasons: list[str] = []
    cancelled: bool = False
    """A person ended the run before eval decided it; ``decision`` is then ``refused``, which every reader knows."""


class DatasetDeleted(Event):
    """An identifier was deleted everywhere; the pipeline_run_id is the operation's own."""

    HEADER_EVENT = "deleted"


class RunProgress(Event):
    """A stage of a run moved on; only people watch it."""

    HEADER_EVENT = "progress"

    service: str
    stage: str
    state: str
    epoch: int | None = None
    epochs: int | None = None
    loss: float | None = None
    elapsed: float | None = None
    """Seconds since the stage began."""
    detail: str | None = None


class PerformanceEval(Event):
    """A batch forecast of a run's test rows was written and measured."""

    HEADER_EVENT = "performance"

    status: Literal["done", "skipped"]
    reason: str | None = None
    run_id: RunId | None = None
    model_type: ModelType | None = None
    log: ClaimCheck | None = None
    rows: int = 0
    metrics: dict[str, Any] = {}
    """``{target: {horizon: {rmse, mae, coverage}}}`` in raw units."""
