"""Settings classes that services share. Only settings classes read the environment.

A service's class inherits the classes that it needs. A field is read from the variable with its name in capitals. An
empty variable counts as unset. The docstring of a field is its line in ``docs/configuration.md``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from flts.errors import RejectedError

CommaSeparated = Annotated[tuple[str, ...], NoDecode]
"""A list written as ``A,B,C``."""
Length = Annotated[int | None, BeforeValidator(lambda value: None if value == "auto" else value)]
"""A number of rows; None for ``auto``."""
OR_AUTO: dict[str, Any] = {"text": "auto"}
"""For the chart's schema: a text that a number may also be."""
AUTO_WINDOW_ROWS, AUTO_PASS_STEPS = 10, 1
ANSWER_FIELDS = ("lower_bound", "upper_bound", "point")
"""Settings that change forecasts after the model; they enter a train_hash only with another value than the default."""
DEFAULT_CREDENTIALS = frozenset(
    {"minioadmin", "minio", "minio123", "password", "changeme", "admin", "mlflow", "postgres", "secret"}
)


class Settings(BaseSettings):
    """Base of all settings: frozen, and each field is read from one environment variable."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        use_attribute_docstrings=True,
        case_sensitive=False,
        coerce_numbers_to_str=True,
    )

    @classmethod
    def load(cls) -> Self:
        """Read the environment; if variables are missing or wrong, print all of them and exit with 2."""
        try:
            return cls()
        except ValidationError as error:
            for line in describe_problems(error):
                sys.stderr.write(f"{line}\n")
            raise SystemExit(2) from None

    @classmethod
    def overridable(cls) -> frozenset[str]:
        """Return the names (``EPOCHS``) that a request may override."""
        return frozenset(
            name.upper()
            for owner in cls.__mro__
            if issubclass(owner, Settings) and owner.__dict__.get("OVERRIDABLE", False)
            for name in owner.__annotations__
            if name in cls.model_fields
        )

    def with_overrides(self, overrides: Mapping[str, str | float | bool]) -> Self:
        """Return these settings with the overrides of a request, validated like the environment.

        A name that this class does not have, or that a request may not override, is ignored, because the overrides in
        a message are for several services. The gateway refuses unknown names with `check_overrides`.

        Raises
        ------
        RejectedError
            If a value is not valid; ``field`` is the name of the variable.
        """
        mine = {name.lower(): value for name, value in overrides.items() if name.upper() in self.overridable()}
        if not mine:
            return self
        values = {name: getattr(self, name) for name in type(self).model_fields}
        try:
            # All fields are passed, because a missing field would be read from the environment again.
            changed = type(self)(**{**values, **mine})
        except ValidationError as error:
            first = error.errors()[0]
            field = str(first["loc"][0]).upper() if first["loc"] else None
            raise RejectedError("; ".join(describe_problems(error)), code="bad_setting", field=field) from error
        changed.model_fields_set.intersection_update(self.model_fields_set | mine.keys())
        return changed


def split_commas(*fields: str) -> Any:
    """Return a validator with which the fields accept the form ``A,B,C``."""

    def split(value: object) -> object:
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)  # `--set MISSING=-999`
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    return field_validator(*fields, mode="before")(split)


def describe_problems(error: ValidationError) -> list[str]:
    """Return one line per missing or wrong variable, without its value, which may be a secret."""
    lines = []
    for problem in error.errors(include_input=False, include_url=False):
        reason = "is required" if problem["type"] == "missing" else problem["msg"].removeprefix("Value error, ")
        # The error of a validator of several fields has no location. Its message names the variables, so no name is put
        # before it.
        lines.append(f"{str(problem['loc'][0]).upper()}: {reason}" if problem["loc"] else reason)
    return lines


def check_overrides(overrides: Mapping[str, str | float | bool], *classes: type[Settings]) -> None:
    """Refuse overrides that a request may not change in any class, and values that a class does not accept.

    Raises
    ------
    RejectedError
        ``unknown_setting``, with the first unknown setting and the known settings; ``bad_setting``, with the setting
        and the reason that its value is refused.
    """
    known = frozenset().union(*(settings.overridable() for settings in classes))
    for name in overrides:
        if name.upper() not in known:
            msg = f"{name} is not a setting that a run can override; known: {', '.join(sorted(known))}"
            raise RejectedError(msg, code="unknown_setting", field=name)
    for settings in classes:
        settings.model_construct().with_overrides(overrides)


class ServiceSettings(Settings):
    """Settings of every service: its address and its log level."""

    service_host: str = "0.0.0.0"  # noqa: S104 - the deployment decides which ports of a container are published
    """Address on which the service's HTTP port listens."""
    service_port: int = Field(default=8000, ge=1, le=65535)
    """Port of /healthz, /readyz, /metrics and of the service's API, if it has one."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lowest severity that is logged."""
    flts_commit: str = "unknown"
    """Commit from which the code was built; in the log event version_start and in flts_build_info."""
    kill_points: Path | None = None
    """For tests only, and logged as a warning at each start: folder in which a test names the points of the code at
    which the service ends itself with SIGKILL."""


class BackendSettings(Settings):
    """The time that a starting service waits for its backends."""

    backend_check_seconds: float = Field(default=30, gt=0)
    """Seconds in which the checks of all backends at start must succeed."""


class KafkaSettings(BackendSettings):
    """The broker and the consumption of messages."""

    kafka_bootstrap_servers: str
    """Addresses of the brokers, `host:port`, comma-separated."""
    kafka_group_protocol: Literal["consumer", "classic"] = "consumer"
    """`consumer` is KIP-848 (Kafka 4); `classic` for older brokers."""
    namespace_prefix: str = Field(default="", pattern=r"^[A-Za-z0-9-]{0,32}$")
    """Prefix of the names of topics, groups and buckets, so that two installations can share backends."""
    topic_partitions: int = Field(default=6, ge=1, le=1000)
    """Number of partitions of each topic that a service creates."""
    kafka_max_poll_interval_ms: int = Field(default=300_000, ge=10_000)
    """Longest time between two polls before the broker revokes the partitions; work may last longer."""
    failure_max_retries: int = Field(default=3, ge=1, le=20)
    """Attempts before a message goes to the dead letters."""
    retry_backoff_seconds: float = Field(default=2.0, gt=0)
    """Wait before the second attempt; doubles with each further attempt, up to a minute."""
    work_deadline_seconds: float = Field(default=3600, gt=0)
    """Longest time of one attempt at the work of a message."""
    train_stuck_seconds: float = Field(default=120, gt=0)
    """Work without progress for this long is logged with its stack, stopped and retried."""
    drain_seconds: float = Field(default=25, gt=0)
    """Time that a stopping service leaves to running work; Compose and Kubernetes kill it after 35 s or more."""


class StoreSettings(BackendSettings):
    """The object store."""

    store: Literal["s3", "filesystem"] = "s3"
    """Adapter of the object store."""
    store_path: Path | None = None
    """Folder of the filesystem store."""
    mlflow_s3_endpoint_url: str | None = None
    """Address of the S3 server, `http://minio:9000`."""
    aws_access_key_id: str | None = None
    """Access key of the S3 server."""
    aws_secret_access_key: SecretStr | None = None
    """Secret key of the S3 server."""
    aws_default_region: str = "us-east-1"
    """Region named in S3 signatures."""
    allow_default_credentials: bool = False
    """Accept well-known default passwords; for disposable installations only."""
    bucket_raw_data: str = "raw-data"
    """Bucket of uploads."""
    bucket_processed_data: str = "processed-data"
    """Bucket of preprocessed data sets."""
    bucket_model_bundles: str = "model-bundles"
    """Bucket of trained bundles."""
    promotion_bucket: str = "model-promotion"
    """Bucket of the champion pointers."""
    bucket_pipeline_runs: str = "pipeline-runs"
    """Bucket of the runs' records."""
    bucket_inference_logs: str = "inference-logs"
    """Bucket of forecast logs."""

    @model_validator(mode="after")
    def _complete_and_safe(self) -> Self:
        if self.store == "filesystem":
            if self.store_path is None:
                msg = "STORE_PATH: is required with STORE=filesystem"
                raise ValueError(msg)
            return self
        needed = ("mlflow_s3_endpoint_url", "aws_access_key_id", "aws_secret_access_key")
        missing = [name.upper() for name in needed if getattr(self, name) is None]
        if missing:
            msg = f"{', '.join(missing)}: required with STORE=s3"
            raise ValueError(msg)
        secret = self.aws_secret_access_key.get_secret_value() if self.aws_secret_access_key else ""
        if secret.lower() in DEFAULT_CREDENTIALS and not self.allow_default_credentials:
            msg = (
                "AWS_SECRET_ACCESS_KEY: is a well-known default password; choose another, "
                "or set ALLOW_DEFAULT_CREDENTIALS=1 on a throw-away installation"
            )
            raise ValueError(msg)
        return self


class RetentionSettings(StoreSettings):
    """Retention by the janitor."""

    retain_runs: int = Field(default=20, ge=1)
    """Finished runs of an identifier that the janitor keeps."""
    retain_log_days: int = Field(default=30, ge=1)
    """Days for which the janitor keeps forecast logs."""


class TrackingSettings(Settings):
    """MLflow, the record of runs and models."""

    mlflow_tracking_uri: str
    """Address of the MLflow server, `http://mlflow:5000`."""
    mlflow_timeout_seconds: float = Field(default=3.0, gt=0)
    """Timeout of one call. There is no retry; a document that MLflow does not accept is spooled."""
    mlflow_close_seconds: float = Field(default=10.0, gt=0)
    """Longest time in total that the end of a run waits for MLflow."""


class WindowSettings(Settings):
    """Lengths of windows and tails, which determine how many rows a data set needs, and what forecasts are."""

    OVERRIDABLE: ClassVar[bool] = True

    horizon: str = Field(default="auto", max_length=40)
    """Steps ahead that models are trained for, judged at and served for: a number of steps (`48`) or a duration (`24h`,
    `14 days`, `12 months`). `auto`: `OUTPUT_SEQ_LEN` if that is a number, else by the step of the rows. Never more than
    a tenth of the rows."""
    input_seq_len: Length = Field(default=None, ge=1, le=10_000, json_schema_extra=OR_AUTO)
    """Rows in the window of a window model, unless the model chooses its own window. Unset or `auto`: 10. Of a direct
    network the rows that its correction of LINEAR reads, 48 if it is not a number."""
    output_seq_len: Length = Field(default=None, ge=1, le=1_000, json_schema_extra=OR_AUTO)
    """Rows that a window model forecasts in one pass. Unset or `auto`: GRU and LSTM forecast the whole horizon in one
    pass, other window models 1."""
    stop_tail: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of the training part that is reserved for early stopping."""
    calibration_tail: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of the training part, after the stopping tail, that is reserved for calibrating the intervals."""
    lower_bound: str = Field(default="auto", max_length=40)
    """Lowest value of forecasts and their intervals: `auto` (0 for a target that is never negative in the training
    rows), `none`, or a number for every target."""
    upper_bound: str = Field(default="none", max_length=40)
    """Highest value of forecasts and their intervals: `none`, or a number for every target."""
    point: Literal["mean", "median"] = "mean"
    """The forecast of a target: the model's, which is the `mean`, or that moved by the `median` of the calibrated
    residuals at each step. A model without intervals forecasts the mean."""

    @field_validator("lower_bound", "upper_bound")
    @classmethod
    def _is_bound(cls, value: str, info: ValidationInfo) -> str:
        """Return one text for each number, so that equal bounds have equal hashes."""
        words = ("auto", "none") if info.field_name == "lower_bound" else ("none",)
        if (word := value.strip().lower()) in words:
            return word
        try:
            number = float(word)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            msg = f"must be a number or {' or '.join(words)}"
            raise ValueError(msg)
        lower = info.data.get("lower_bound", "auto")
        if info.field_name == "upper_bound" and lower not in {"auto", "none"} and number < float(lower):
            msg = f"is less than LOWER_BOUND, {float(lower):g}"
            raise ValueError(msg)
        return repr(number + 0.0)  # 0.0 for -0

    @property
    def window_rows(self) -> int:
        """Rows in the window of a window model."""
        return AUTO_WINDOW_ROWS if self.input_seq_len is None else self.input_seq_len

    @property
    def pass_steps(self) -> int:
        """Rows that a window model forecasts in one pass."""
        return AUTO_PASS_STEPS if self.output_seq_len is None else self.output_seq_len

    @property
    def limit_rules(self) -> tuple[float | Literal["auto"] | None, float | None]:
        """`LOWER_BOUND` and `UPPER_BOUND`, None for ``none`` (`flts.forecasting.limits`)."""
        lower: float | Literal["auto"] | None = "auto"
        if self.lower_bound != "auto":
            lower = None if self.lower_bound == "none" else float(self.lower_bound)
        return lower, None if self.upper_bound == "none" else float(self.upper_bound)

    @property
    def hashed_answer(self) -> dict[str, str]:
        """The settings of `ANSWER_FIELDS` that enter a train_hash, by field name: those that are not the default."""
        values = {name: getattr(self, name) for name in ANSWER_FIELDS}
        return {name: value for name, value in values.items() if value != WindowSettings.model_fields[name].default}

    def hashed(self, owner: type[WindowSettings]) -> dict[str, Any]:
        """Return the settings of a model that enter its train_hash, by field name.

        ``owner`` is the settings class of the model's trainer. A length that is ``auto`` has its number, so that the
        hash is that of the release that had no ``auto``. A window model is the same at every horizon.
        """
        lengths = {"input_seq_len": self.window_rows, "output_seq_len": self.pass_steps}
        names = (name for name in owner.model_fields if name not in {"horizon", *ANSWER_FIELDS})
        return {name: getattr(self, name) for name in names} | lengths | self.hashed_answer


class RefitSettings(Settings):
    """The refit of promoted models."""

    OVERRIDABLE: ClassVar[bool] = True

    refit: bool = True
    """Fit the promoted model again on all rows, those that it was judged on included, and serve this fit."""


class UploadLimits(Settings):
    """Limits of an upload."""

    max_upload_bytes: int = Field(default=512 * 2**20, ge=1)
    """Maximum bytes of one uploaded file."""
    max_upload_rows: int = Field(default=20_000_000, ge=1)
    """Maximum rows of one uploaded file."""
    max_upload_columns: int = Field(default=1_000, ge=1)
    """Maximum columns of one uploaded file."""
    max_upload_cells: int = Field(default=100_000_000, ge=1)
    """Maximum rows x columns of one uploaded file."""
