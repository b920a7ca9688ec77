"""The tensors that the model of a bundle takes and returns, by the kind of its inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from flts.forecasting.direct import CLOCK, FUTURE, PAST, PLACES, SECONDS
from flts.forecasting.places import TURNS
from flts.forecasting.rolling import WINDOW_INPUT

if TYPE_CHECKING:
    from flts.bundle.format import Bundle

SECONDS_INPUT, OUTPUT = SECONDS, "forecast"
MAX_BATCH = 64
"""Windows or times per call; a larger input is split, so that a call needs no more memory than the proof."""
BATCH_BYTES = 64 * 2**20
"""Bytes of the inputs and the answer of one call; a call of longer windows has fewer than `MAX_BATCH` rows."""

InputKind = Literal["window", "timestamps", "direct"]
NumberType = Literal["float32", "float64", "int64"]


@dataclass(frozen=True)
class Tensor:
    """An input or the output of a model."""

    name: str
    numbers: NumberType
    shape: tuple[int, ...]
    """Without the first dimension, the batch."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of the batch."""
        return np.dtype(self.numbers).itemsize * math.prod(self.shape)


@dataclass(frozen=True)
class Signature:
    """What a model must take and return."""

    inputs: tuple[Tensor, ...]
    output: Tensor

    @property
    def row_bytes(self) -> int:
        """Bytes of the inputs and the answer of one row of the batch."""
        return sum(tensor.row_bytes for tensor in (*self.inputs, self.output))

    @cached_property
    def batch_rows(self) -> int:
        """Most rows of one call."""
        return max(1, min(MAX_BATCH, BATCH_BYTES // self.row_bytes))


def signature_of(bundle: Bundle) -> Signature:
    """Return the tensors that the model of a bundle must take and return."""
    return _SIGNATURES[bundle.input_kind](bundle)


def _window(bundle: Bundle) -> Signature:
    window = (bundle.input_seq_len, len(bundle.recipe.feature_names))
    forecast = (bundle.output_seq_len, bundle.output_columns)
    return Signature((Tensor(WINDOW_INPUT, "float32", window),), Tensor(OUTPUT, "float32", forecast))


def _timestamps(bundle: Bundle) -> Signature:
    return Signature((Tensor(SECONDS_INPUT, "int64", ()),), Tensor(OUTPUT, "float64", (bundle.output_columns,)))


def _direct(bundle: Bundle) -> Signature:
    window = bundle.input_seq_len
    rows = window + bundle.horizon_steps
    known: dict[str, Tensor] = {
        PAST: Tensor(PAST, "float32", (window, len(bundle.recipe.columns))),
        PLACES: Tensor(PLACES, "int64", (rows, len(bundle.seasons))),
        CLOCK: Tensor(CLOCK, "float32", (rows, TURNS)),
        SECONDS: Tensor(SECONDS, "int64", (rows,)),
        FUTURE: Tensor(FUTURE, "float32", (rows, len(bundle.future_columns))),
    }
    forecast = (bundle.horizon_steps, bundle.output_columns)
    return Signature(tuple(known[name] for name in bundle.inputs), Tensor(OUTPUT, "float32", forecast))


_SIGNATURES: dict[InputKind, Callable[[Bundle], Signature]] = {
    "window": _window,
    "timestamps": _timestamps,
    "direct": _direct,
}
