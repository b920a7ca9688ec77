"""The events: one frozen class per event. An event states a fact; its producer does not depend on its consumers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from flts.contracts.champion_stage import ChampionStage
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
    """The fields of every event."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null", use_attribute_docstrings=True)

    v: Literal[1] = 1
    """Schema version; a new optional field does not change it."""
    event_id: Uuid
    """UUIDv5 of the id of the input event, run or operation and the kind of output, so that a repeat derives the same
    id; random in `RunProgress`."""
    identifier: Identifier
    """Name of the data set; also the key of the Kafka record."""
    pipeline_run_id: Uuid
    """UUIDv7 of the pipeline run, from raw data to decision."""
    config_hash: Sha256 | None = None
    """Null before preprocess has computed it."""
    created_at: datetime

    def header_event(self) -> str:
        """Return the value of the header ``event``."""
        return self.HEADER_EVENT

    HEADER_EVENT: ClassVar[str]


class Sampling(BaseModel):
    """The sampling of rows. Only preprocess samples."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    strategy: Literal["head", "random"]
    original_rows: int
    sampled_rows: int
    seed: int


class RawData(Event):
    """The gateway or a Job stored a data set and started a pipeline run on it."""

    HEADER_EVENT = "raw-claim"

    train: ClaimCheck
    test: ClaimCheck | None = None
    settings: dict[str, Scalar] = {}
    """Overrides of recipe and training settings, by the names of their environment variables."""
    force: bool = False
    cause: Cause = "upload"
    reason: str | None = Field(default=None, max_length=500)
    """The reason given by the user who started the run."""


class TrainingData(Event):
    """Preprocess cleaned, split and stored a data set; trainers can train on it."""

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
    """The test rows in raw units, preceded by context rows from the end of the training part."""
    raw_test_context_rows: int
    """Number of context rows at the start of ``raw_test``; eval does not score them."""
    step_seconds: int
    """Seconds between two rows; the mean if ``grid`` is given."""
    grid: dict[str, Any] | None = None
    """The grid of the rows (`flts.forecasting.grid`), if it is not just a fixed step."""
    horizon_steps: int | None = Field(default=None, ge=1)
    """Steps ahead that models are trained for, judged at and served for; null: `OUTPUT_SEQ_LEN`."""
    sampling: Sampling | None = None
    test_sampling: Sampling | None = None
    settings: dict[str, Scalar] = {}
    force: bool = False
    cause: Cause = "upload"

    def claim(self) -> ClaimCheck:
        """Return the fields ``bucket`` to ``columns`` as a claim check."""
        return ClaimCheck(
            bucket=self.bucket,
            object_key=self.object_key,
            size=self.size,
            sha256=self.sha256,
            rows=self.rows,
            columns=self.columns,
        )


class InferenceData(TrainingData):
    """Preprocess stored the test rows of a run for a batch forecast; ``object_key`` is that of the processed rows."""

    HEADER_EVENT = "inference-claim"


class ModelTraining(Event):
    """A trainer finished with a bundle or with an error."""

    model_type: ModelType
    status: Literal["SUCCESS", "FAILED"]
    run_id: RunId
    mlflow_run_id: str | None = None
    experiment_name: str
    model_uri: str | None = None
    bundle: ClaimCheck | None = None
    """Claim check of ``bundle.json``, which contains the hash of ``model.onnx`` in the same folder."""
    train: ClaimCheck
    test: ClaimCheck
    metrics: dict[str, float | None] = {}
    duration_seconds: float
    error: str | None = Field(default=None, max_length=2000)
    reused: bool = False
    """The trainer did not train; it published the verified bundle of an earlier run again."""

    HEADER_EVENT = "trained"

    def header_event(self) -> str:
        """Return ``trained-<MODEL_TYPE>``."""
        return f"trained-{self.model_type}"


class RefitRequest(TrainingData):
    """Eval promoted a model: its trainer is to fit it again on the training rows and the test rows."""

    HEADER_EVENT = "refit-request"

    model_type: ModelType
    judged: ClaimCheck
    """Claim check of the ``bundle.json`` of the promoted model, whose settings and choices are used again."""


class ModelRefit(Event):
    """A trainer finished a refit, with a bundle or with an error."""

    model_type: ModelType
    status: Literal["SUCCESS", "FAILED"]
    judged: ClaimCheck
    bundle: ClaimCheck | None = None
    """Claim check of the ``bundle.json`` of the refitted model."""
    duration_seconds: float
    error: str | None = Field(default=None, max_length=2000)
    reused: bool = False
    """The bundle was in the store, and the trainer only checked it."""

    HEADER_EVENT = "refitted"

    def header_event(self) -> str:
        """Return ``refitted-<MODEL_TYPE>``."""
        return f"{self.HEADER_EVENT}-{self.model_type}"


class EvaluateRequest(Event):
    """Eval is to decide on the candidates of a run: a user requested it, or the run is overdue."""

    HEADER_EVENT = "evaluate"

    of_run: Uuid
    cause: Cause = "evaluate"
    reason: str | None = Field(default=None, max_length=500)
    """The reason given by the user who sent the request."""


class RollbackRequest(Event):
    """A user requested that an earlier champion becomes the current champion again."""

    HEADER_EVENT = "rollback"

    of_run: Uuid | None = None
    """The run whose champion returns; null is the predecessor of the current champion."""
    cause: Cause = "rollback"
    reason: str | None = Field(default=None, max_length=500)
    """The reason given by the user who sent the request."""


class ModelSelected(Event):
    """Eval decided a pipeline run."""

    HEADER_EVENT = "promotion"

    decision: Literal["promoted", "kept", "refused", "superseded"]
    run_id: RunId | None = None
    model_type: ModelType | None = None
    model_uri: str | None = None
    bundle: ClaimCheck | None = None
    score: float | None = None
    """Mean error over the horizon in units of the best baseline's error at each step; 1 is the best baseline."""
    rmse: float | None = None
    """Scaled, mean over targets and steps of the horizon; so are ``mae`` and ``mse``."""
    mae: float | None = None
    mse: float | None = None
    weights: dict[str, float] = {}
    """Weights of RMSE, MAE and MSE in the error of the score."""
    previous_run_id: RunId | None = None
    scoreboard: ClaimCheck | None = None
    reasons: list[str] = []
    cancelled: bool = False
    """A user cancelled the run before eval decided it; ``decision`` is then ``refused``, which all releases accept."""
    stage: ChampionStage | None = None
    """Stage of the champion; null is ``decided``, the only stage that ends a run."""


class DatasetDeleted(Event):
    """An identifier was deleted in all buckets; the pipeline_run_id is the id of the deletion."""

    HEADER_EVENT = "deleted"


class RunProgress(Event):
    """A stage of a run made progress. The gateway shows it; eval uses it to detect silent trainers."""

    HEADER_EVENT = "progress"

    service: str
    stage: str
    state: str
    epoch: int | None = None
    epochs: int | None = None
    loss: float | None = None
    elapsed: float | None = None
    """Seconds since the start of the stage."""
    detail: str | None = None


class PerformanceEval(Event):
    """The inference worker wrote and scored, or skipped, the batch forecast of a run's test rows."""

    HEADER_EVENT = "performance"

    status: Literal["done", "skipped"]
    reason: str | None = None
    run_id: RunId | None = None
    model_type: ModelType | None = None
    log: ClaimCheck | None = None
    rows: int = 0
    metrics: dict[str, Any] = {}
    """``{target: {horizon: {rmse, mae, coverage}}}`` in raw units."""
