"""Settings of the embedded mode: the folder of its data and its ports."""

from __future__ import annotations

from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr, field_validator

from flts.settings import CommaSeparated, Settings, split_commas
from flts.trainers import DEFAULT_MODEL_TYPES, Trainer, known_model_types, trainers_for

Port = int


class EmbeddedSettings(Settings):
    """One machine, no Docker. For a port of 0 the launcher chooses a free one."""

    flts_home: Path = Path(".flts")
    """Folder of everything the embedded mode keeps: store, MLflow's database, logs, the gateway's key."""
    gateway_port: int = Field(default=8000, ge=0, le=65535)
    """Port of the gateway."""
    inference_port: int = Field(default=30080, ge=0, le=65535)
    """Port of the inference service."""
    mlflow_port: int = Field(default=5000, ge=0, le=65535)
    """Port of MLflow."""
    kafka_port: int = Field(default=9092, ge=0, le=65535)
    """Port of the embedded broker."""
    preprocess_port: int = Field(default=8020, ge=0, le=65535)
    """Port of preprocess's health and metrics."""
    # trainers (ports): written by `make generate`
    train_gru_port: int = Field(default=8021, ge=0, le=65535)
    """Port of the GRU trainer's health and metrics."""
    train_lstm_port: int = Field(default=8023, ge=0, le=65535)
    """Port of the LSTM trainer's health and metrics."""
    nonml_prophet_port: int = Field(default=8022, ge=0, le=65535)
    """Port of the PROPHET trainer's health and metrics."""
    nonml_holt_port: int = Field(default=8025, ge=0, le=65535)
    """Port of the HOLT trainer's health and metrics."""
    nonml_baseline_port: int = Field(default=8026, ge=0, le=65535)
    """Port of the BASELINE trainer's health and metrics."""
    # end of trainers
    eval_port: int = Field(default=8050, ge=0, le=65535)
    """Port of eval's health and metrics."""
    inference_worker_port: int = Field(default=8024, ge=0, le=65535)
    """Port of the inference worker's health and metrics."""
    kafka_advertised: str | None = None
    """Address, `host:port`, at which services reach the broker through a proxy."""
    mlflow_advertised: str | None = None
    """Address, `host:port`, at which services reach MLflow through a proxy."""
    expected_model_types: CommaSeparated = DEFAULT_MODEL_TYPES
    """Model types whose trainers run beside that of the baselines, and whose candidates eval waits for."""
    gateway_api_key: SecretStr | None = None
    """The gateway's API key; if unset, the one in `FLTS_HOME/api-key`, which the first start creates."""
    store: str = "filesystem"
    """`filesystem`, or `s3` with an S3 server's address and keys in the environment."""
    start_seconds: float = Field(default=120, gt=0)
    """Longest wait for all services to be ready."""
    stop_seconds: float = Field(default=20, gt=0)
    """Time that the services have to end before they are killed."""

    _split = split_commas("expected_model_types")

    @field_validator("expected_model_types")
    @classmethod
    def _registered(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return known_model_types(value)

    def trainers(self) -> tuple[Trainer, ...]:
        """Return the trainers to start."""
        return trainers_for(self.expected_model_types)


class DemoSettings(Settings):
    """The data set and the forecast of `make demo`."""

    data: Path | None = Field(default=None, validation_alias=AliasChoices("DATA", "data"))
    """CSV of the training rows; if unset, the generated sample."""
    test: Path | None = Field(default=None, validation_alias=AliasChoices("TEST", "test"))
    """CSV of the test rows; if unset, the last fifth of the rows of DATA."""
    name: str = ""
    """Identifier of the data set; if empty, DATA's file name, or `sample`."""
    once: bool = False
    """Stop after the first served forecast instead of serving until Ctrl-C."""
    demo_timeout_seconds: float = Field(default=1800, gt=0)
    """Longest time from upload to decision."""
