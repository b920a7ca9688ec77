"""The document ``bundle.json``: all facts about a model except its weights. Unknown or missing fields are refused."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flts.bundle import BUNDLE_FILE
from flts.bundle.tensors import InputKind, signature_of
from flts.contracts.events import Identifier, ModelType, Sha256
from flts.contracts.ids import canonical_json
from flts.errors import RejectedError
from flts.forecasting.intervals import Intervals
from flts.forecasting.recipe import FittedRecipe

FORMAT_VERSION = 1
MAX_BUNDLE_BYTES = 8 * 2**20
"""Bytes; far more than a recipe of 1,000 columns and a probe of one window need."""
MAX_MODEL_BYTES = 512 * 2**20
"""Bytes; enough for 8 layers of 1,500 LSTM units. The limit of ONNX is 2 GB."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The content of ``bundle.json``. It has no times and no run ids, so that equal trainings give equal bytes."""

    model_type: str
    input_kind: InputKind
    """``window``: the input is scaled rows; ``timestamps``: the input is epoch seconds, values are not used."""
    identifier: str
    config_hash: str
    train_hash: str
    recipe: FittedRecipe
    input_seq_len: int
    output_seq_len: int
    rows_required: int
    """Rows that a request must contain: at least the window and the rows that its lags need; 1 for timestamps.

    Writers write exactly this number, because release 0.1.0 refuses a larger number.
    """
    max_horizon_steps: int | None
    """Longest forecast; None means no limit, because the model can roll or uses only times."""
    targets: tuple[str, ...]
    """All targets, constant targets included, in the order of forecasts."""
    intervals: Intervals | None
    intervals_source: str | None
    """``calibration_tail``: the exported model's residuals; ``from_refit``: the fit's residuals (Prophet, the mean)."""
    model_sha256: str
    model_size: int
    probe: dict[str, list[Any]]
    """``inputs``: real windows (b, L, f) or real seconds (b,); ``outputs``: the trainer's scaled answers."""
    metrics: dict[str, float | None] = field(default_factory=dict)
    """The trainer's final metrics of the model in the bundle."""
    reason: str | None = None
    """``all_constant`` if every target is constant; the forecast of a target is then its constant."""
    format_version: int = FORMAT_VERSION

    @property
    def reads_values(self) -> bool:
        """Whether the model reads values of rows, not only times."""
        return self.input_kind != "timestamps"

    @property
    def output_columns(self) -> int:
        """Number of columns of the model's answer; the answer of a constant bundle is one column of zeros."""
        return max(1, len(self.recipe.varying_targets))

    def to_json(self) -> bytes:
        """Return the canonical JSON.

        Raises
        ------
        RejectedError
            ``bad_bundle`` if a number is not finite or the document contradicts itself.
        """
        document = {name: getattr(self, name) for name in _PLAIN_FIELDS}
        document["targets"] = list(self.targets)
        document["recipe"] = self.recipe.to_dict()
        document["intervals"] = None if self.intervals is None else self.intervals.to_dict()
        try:
            data = canonical_json(document)
        except ValueError as error:
            _refuse(f"the bundle holds a number that is not finite: {error}", cause=error)
        _check(self)
        return data

    @staticmethod
    def from_json(data: bytes) -> Bundle:
        """Read and validate a ``bundle.json`` from an untrusted source.

        Raises
        ------
        RejectedError
            ``bad_bundle`` with the reason: another format version, unknown or missing fields, numbers that are not
            finite, lengths that contradict each other.
        """
        if len(data) > MAX_BUNDLE_BYTES:
            _refuse(f"{BUNDLE_FILE} has {len(data)} bytes, more than {MAX_BUNDLE_BYTES}")
        try:
            raw = json.loads(data, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            _refuse(f"{BUNDLE_FILE} is not JSON: {error}", cause=error)
        version = raw.get("format_version") if isinstance(raw, dict) else None
        if version != FORMAT_VERSION:
            _refuse(f"unknown format version {str(version)[:20]} of {BUNDLE_FILE}; this reader knows {FORMAT_VERSION}")
        try:
            document = _Document.model_validate(raw)
            recipe = FittedRecipe.from_dict(document.recipe)
            intervals = None if document.intervals is None else Intervals.from_dict(document.intervals)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            _refuse(f"{BUNDLE_FILE}: {place}: {first['msg']}", cause=error)
        except RejectedError as error:
            _refuse(f"{BUNDLE_FILE}: {error.message}", cause=error)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            _refuse(f"{BUNDLE_FILE}: recipe or intervals are malformed: {error!r}", cause=error)
        plain = {name: getattr(document, name) for name in _PLAIN_FIELDS}
        bundle = Bundle(**plain, targets=document.targets, recipe=recipe, intervals=intervals)
        _check(bundle)
        return bundle


class _Document(BaseModel):
    """The fields of the JSON document and their limits."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format_version: Literal[1]
    model_type: ModelType
    input_kind: InputKind
    identifier: Identifier
    config_hash: Sha256
    train_hash: Sha256
    recipe: dict[str, Any]
    input_seq_len: int = Field(ge=1, le=10_000)
    output_seq_len: int = Field(ge=1, le=1_000)
    rows_required: int = Field(ge=1, le=1_100_000)
    max_horizon_steps: int | None = Field(default=None, ge=1)
    targets: tuple[str, ...] = Field(min_length=1)
    intervals: dict[str, Any] | None
    intervals_source: Literal["calibration_tail", "from_refit"] | None
    model_sha256: Sha256
    model_size: int = Field(ge=1, le=MAX_MODEL_BYTES)
    probe: dict[Literal["inputs", "outputs"], list[Any]]
    metrics: dict[str, float | None]
    reason: Literal["all_constant"] | None


_PLAIN_FIELDS = tuple(name for name in _Document.model_fields if name not in {"recipe", "intervals", "targets"})


def _check(bundle: Bundle) -> None:
    """Refuse a document whose parts contradict each other."""
    recipe = bundle.recipe
    varying = len(recipe.varying_targets)
    if bundle.format_version != FORMAT_VERSION:
        _refuse(f"unknown format version {bundle.format_version}")
    if tuple(recipe.targets) != bundle.targets:
        _refuse("targets are not the recipe's")
    if (bundle.reason == "all_constant") != (varying == 0):
        _refuse("reason all_constant contradicts the recipe's constants")
    if varying == 0 and bundle.reads_values:
        _refuse("a constant bundle takes timestamps")
    rows = bundle.input_seq_len + recipe.warmup_rows if bundle.reads_values else 1
    if bundle.rows_required < rows:
        _refuse(f"rows_required is {bundle.rows_required}; window and lags need {rows}")
    _check_probe(bundle)
    intervals = bundle.intervals
    if intervals is None:
        return
    if varying == 0:
        _refuse("intervals of a constant bundle")
    for bound in (intervals.lower, intervals.upper):
        if bound is not None and bound.shape != (len(intervals.steps), varying):
            _refuse(f"interval quantiles have shape {bound.shape}, not {(len(intervals.steps), varying)}")


def _check_probe(bundle: Bundle) -> None:
    """Refuse a probe with another shape than the model, or with values that are not finite numbers."""
    inputs, outputs = bundle.probe.get("inputs"), bundle.probe.get("outputs")
    if not inputs or not outputs or len(inputs) != len(outputs):
        _refuse("the probe needs as many outputs as inputs, and at least one")
    signature = signature_of(bundle)
    [given], answer = signature.inputs, signature.output.shape
    if not all(_has_shape(row, given.shape) for row in inputs) or not all(_has_shape(row, answer) for row in outputs):
        _refuse(f"the probe's windows must be {given.shape} and its answers {answer} finite numbers")


def _has_shape(value: object, shape: tuple[int, ...]) -> bool:
    if not shape:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, list) and len(value) == shape[0] and all(_has_shape(part, shape[1:]) for part in value)


def _refuse_constant(name: str) -> NoReturn:
    msg = f"{name} is not a finite number"
    raise ValueError(msg)


def _refuse(message: str, *, cause: Exception | None = None) -> NoReturn:
    raise RejectedError(message, code="bad_bundle") from cause
