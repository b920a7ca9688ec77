"""The document ``bundle.json``: all facts about a model except its weights. Unknown or missing fields are refused.

Format 2 has more kinds of models, and keeps arrays in the model file (`flts.bundle.arrays`). A bundle that needs none
of its fields is written in format 1, which earlier releases read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flts.bundle import BUNDLE_FILE
from flts.bundle.tensors import InputKind, signature_of
from flts.contracts.events import Identifier, ModelType, Sha256
from flts.contracts.ids import canonical_json
from flts.errors import RejectedError
from flts.forecasting.direct import DIRECT_INPUTS, FUTURE, PLACES, can_continue
from flts.forecasting.intervals import MEDIAN, Intervals
from flts.forecasting.limits import Limits
from flts.forecasting.quantiles import Point
from flts.forecasting.recipe import FittedRecipe

FORMATS = (1, 2)
MAX_BUNDLE_BYTES = 8 * 2**20
"""Bytes; far more than a recipe of 1,000 columns and a probe of one window need."""
MAX_SEASON_ROWS = 1_000_000
"""Rows of the longest season; a week of seconds has 604,800."""
MAX_WINDOW_ROWS, MAX_PASS_STEPS = 10_000, 1_000
"""Rows of the longest window, and steps of the longest pass."""
MAX_MODEL_BYTES = 512 * 2**20
"""Bytes; enough for 8 layers of 1,500 LSTM units. The limit of ONNX is 2 GB."""
Fit = Literal["judged", "refitted"]


@dataclass(frozen=True, slots=True)
class Bundle:
    """The content of ``bundle.json``. It names no run and no time of making, so equal trainings give equal bytes."""

    model_type: str
    input_kind: InputKind
    """``window``: the input is scaled rows; ``timestamps``: the input is epoch seconds, values are not used;
    ``direct``: the inputs are scaled rows and the calendar, and one call forecasts every step of the horizon."""
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
    """``calibration_tail``: residuals of the exported model; ``from_refit``: those of fits on fewer rows (folds)."""
    model_sha256: str
    model_size: int
    probe: dict[str, list[Any]] | None
    """``inputs``: real windows (b, L, f) or real seconds (b,); ``outputs``: the trainer's scaled answers.
    None in format 2, whose probe is in the model file."""
    metrics: dict[str, float | None] = field(default_factory=dict)
    """The trainer's final metrics of the model in the bundle."""
    reason: str | None = None
    """``all_constant`` if every target is constant; the forecast of a target is then its constant."""
    horizon_steps: int = 0
    """Steps that the model was chosen and calibrated for; 0 becomes ``output_seq_len``, as in format 1."""
    fitted_until: int | None = None
    """Epoch seconds of the last row that the model was fitted on, if it is known."""
    fit: Fit = "judged"
    """``judged``: fitted on the training rows; ``refitted``: fitted again on all rows after it was chosen."""
    inputs: tuple[str, ...] = ()
    """Tensors that a direct model takes, some of `DIRECT_INPUTS` in their order."""
    seasons: tuple[int, ...] = ()
    """Lengths in rows of the seasons of ``places``, increasing."""
    future_columns: tuple[str, ...] = ()
    """Columns whose values are known ahead, the last dimension of ``future``."""
    limits: Mapping[str, Limits] = field(default_factory=dict)
    """Lowest and highest value of targets in raw units, None without one; forecasts and bounds are clipped to them."""
    point: Point = "mean"
    """``median``: a forecast is the model's, moved by the median residual, which is then among the intervals. Written
    only then, so that other bundles have the bytes that earlier releases read."""

    def __post_init__(self) -> None:
        if self.horizon_steps == 0:
            object.__setattr__(self, "horizon_steps", self.output_seq_len)

    @property
    def format_version(self) -> int:
        """Format in which the bundle is written."""
        return 1 if self.probe is not None else 2

    @property
    def calibrated_steps(self) -> int:
        """Steps up to which the bounds of forecasts were calibrated."""
        return 0 if self.intervals is None else self.intervals.calibrated_steps

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
        newer = self.format_version > 1
        document = {name: getattr(self, name) for name in (*_PLAIN_FIELDS, *(_NEWER_FIELDS if newer else ()))}
        document["format_version"] = self.format_version
        if self.point == "mean":
            document.pop("point", None)
        document["targets"] = list(self.targets)
        document["recipe"] = self.recipe.to_dict()
        intervals = self.intervals
        document["intervals"] = intervals and (intervals.to_head() if newer else intervals.to_dict())
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
        if version not in FORMATS or isinstance(version, bool | float):
            _refuse(f"unknown format version {str(version)[:20]} of {BUNDLE_FILE}; this reader knows 1 and 2")
        newer = version > 1
        try:
            document = (_NewerDocument if newer else _Document).model_validate(raw)
            recipe = FittedRecipe.from_dict(document.recipe)
            read = Intervals.from_head if newer else Intervals.from_dict
            intervals = None if document.intervals is None else read(document.intervals)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            _refuse(f"{BUNDLE_FILE}: {place}: {first['msg']}", cause=error)
        except RejectedError as error:
            _refuse(f"{BUNDLE_FILE}: {error.message}", cause=error)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            _refuse(f"{BUNDLE_FILE}: recipe or intervals are malformed: {error!r}", cause=error)
        plain = {name: getattr(document, name) for name in (*_PLAIN_FIELDS, *(_NEWER_FIELDS if newer else ()))}
        bundle = Bundle(**plain, targets=document.targets, recipe=recipe, intervals=intervals)
        _check(bundle)
        return bundle


class _Common(BaseModel):
    """The fields of the JSON document of every format and their limits."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model_type: ModelType
    identifier: Identifier
    config_hash: Sha256
    train_hash: Sha256
    recipe: dict[str, Any]
    input_seq_len: int = Field(ge=1, le=MAX_WINDOW_ROWS)
    output_seq_len: int = Field(ge=1, le=MAX_PASS_STEPS)
    rows_required: int = Field(ge=1, le=1_100_000)
    max_horizon_steps: int | None = Field(default=None, ge=1)
    targets: tuple[str, ...] = Field(min_length=1)
    intervals: dict[str, Any] | None
    intervals_source: Literal["calibration_tail", "from_refit"] | None
    model_sha256: Sha256
    model_size: int = Field(ge=1, le=MAX_MODEL_BYTES)
    metrics: dict[str, float | None]
    reason: Literal["all_constant"] | None


class _Document(_Common):
    """The document of format 1."""

    format_version: Literal[1]
    input_kind: Literal["window", "timestamps"]
    probe: dict[Literal["inputs", "outputs"], list[Any]]


class _NewerDocument(_Common):
    """The document of format 2."""

    format_version: Literal[2]
    input_kind: InputKind
    probe: None
    horizon_steps: int = Field(ge=1, le=10_000)
    fitted_until: int | None = Field(ge=-(2**53), le=2**53)
    fit: Fit
    inputs: tuple[Literal["past", "places", "clock", "seconds", "future"], ...]
    seasons: tuple[Annotated[int, Field(ge=2, le=MAX_SEASON_ROWS)], ...] = Field(max_length=3)
    future_columns: tuple[str, ...]
    limits: dict[str, Limits]
    point: Point = "mean"


_NEWER_FIELDS = tuple(name for name in _NewerDocument.model_fields if name not in _Document.model_fields)
_PLAIN_FIELDS = tuple(
    name for name in _Document.model_fields if name not in {"recipe", "intervals", "targets", "format_version"}
)


def _check(bundle: Bundle) -> None:
    """Refuse a document whose parts contradict each other."""
    recipe = bundle.recipe
    varying = len(recipe.varying_targets)
    if tuple(recipe.targets) != bundle.targets:
        _refuse("targets are not the recipe's")
    if (bundle.reason == "all_constant") != (varying == 0):
        _refuse("reason all_constant contradicts the recipe's constants")
    if varying == 0 and bundle.reads_values:
        _refuse("a constant bundle takes timestamps")
    rows = bundle.input_seq_len + recipe.warmup_rows if bundle.reads_values else 1
    if bundle.rows_required < rows:
        _refuse(f"rows_required is {bundle.rows_required}; window and lags need {rows}")
    _check_intervals(bundle)
    if bundle.probe is None:
        _check_newer(bundle)
    else:
        _check_probe(bundle, bundle.probe)


def _check_intervals(bundle: Bundle) -> None:
    intervals = bundle.intervals
    if intervals is None:
        return
    varying = len(bundle.recipe.varying_targets)
    if varying == 0:
        _refuse("intervals of a constant bundle")
    shape = (len(intervals.steps), varying)
    if intervals.values is not None and intervals.values.shape[1:] != shape:
        _refuse(f"interval quantiles have shape {intervals.values.shape[1:]}, not {shape}")


def _check_probe(bundle: Bundle, probe: Mapping[str, list[Any]]) -> None:
    """Refuse a probe with another shape than the model, or with values that are not finite numbers.

    A bundle with its probe in the document is written in format 1, which has none of the fields of format 2.
    """
    if _needs_format_2(bundle):
        _refuse("a bundle with fields of format 2 has its probe in the model file")
    inputs, outputs = probe.get("inputs"), probe.get("outputs")
    if not inputs or not outputs or len(inputs) != len(outputs):
        _refuse("the probe needs as many outputs as inputs, and at least one")
    signature = signature_of(bundle)
    [given], answer = signature.inputs, signature.output.shape
    if not all(_has_shape(row, given.shape) for row in inputs) or not all(_has_shape(row, answer) for row in outputs):
        _refuse(f"the probe's windows must be {given.shape} and its answers {answer} finite numbers")


def _needs_format_2(bundle: Bundle) -> bool:
    """Return whether a bundle has a field that format 1 does not have."""
    own = (bundle.fitted_until, bundle.fit, bundle.inputs, bundle.seasons, bundle.future_columns, dict(bundle.limits))
    return (
        (*own, bundle.point) != (None, "judged", (), (), (), {}, "mean")
        or bundle.input_kind == "direct"
        or bundle.horizon_steps != bundle.output_seq_len
        or not (bundle.intervals is None or bundle.intervals.has_only_edges)
    )


def _check_newer(bundle: Bundle) -> None:
    """Refuse fields of format 2 that contradict each other or the recipe.

    Raises
    ------
    RejectedError
        ``bad_bundle``.
    """
    direct = bundle.input_kind == "direct"
    inputs, horizon = bundle.inputs, bundle.horizon_steps
    if inputs != tuple(name for name in DIRECT_INPUTS if name in inputs) or direct != bool(inputs):
        _refuse(f"inputs are {list(inputs)} for a model of kind {bundle.input_kind}")
    if horizon < bundle.output_seq_len or (direct and horizon != bundle.output_seq_len):
        _refuse(f"horizon_steps is {horizon}, output_seq_len {bundle.output_seq_len}")
    seasons = bundle.seasons
    if any(longer <= season for season, longer in pairwise(seasons)) or (PLACES in inputs and not seasons):
        _refuse(f"seasons are {list(seasons)}; they must increase, and places need at least one")
    future = bundle.future_columns
    if (FUTURE in inputs) != bool(future) or (future and future != bundle.recipe.known_ahead):
        _refuse(f"future_columns are {list(future)[:20]}; the input {FUTURE} needs those that the recipe knows ahead")
    for name, (lower, upper) in bundle.limits.items():
        if name not in bundle.targets or (lower is not None and upper is not None and lower > upper):
            _refuse(f"limits of {name[:80]}: it must be a target, and the lower limit not above the upper")
    if bundle.point == "median" and not (bundle.intervals and bundle.intervals.knows(MEDIAN)):
        _refuse("point is median, which is not among the quantiles of the intervals")
    if direct:
        _check_direct(bundle)


def _check_direct(bundle: Bundle) -> None:
    horizon = bundle.horizon_steps
    longest = bundle.max_horizon_steps
    if not can_continue(bundle.recipe, bundle.inputs) and (longest is None or longest > horizon):
        _refuse(
            f"max_horizon_steps is {bundle.max_horizon_steps}; without its inputs the model forecasts {horizon} steps"
        )
    if bundle.calibrated_steps > horizon:
        _refuse(f"intervals are calibrated for {bundle.calibrated_steps} of {horizon} steps")


def _has_shape(value: object, shape: tuple[int, ...]) -> bool:
    if not shape:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, list) and len(value) == shape[0] and all(_has_shape(part, shape[1:]) for part in value)


def _refuse_constant(name: str) -> NoReturn:
    msg = f"{name} is not a finite number"
    raise ValueError(msg)


def _refuse(message: str, *, cause: Exception | None = None) -> NoReturn:
    raise RejectedError(message, code="bad_bundle") from cause
