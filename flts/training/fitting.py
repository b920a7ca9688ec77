"""The contract of a model type: from rows to a model file and to predictions that check it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from flts.bundle.format import InputKind
from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.recipe import Features
from flts.forecasting.series import FloatArray
from flts.forecasting.splits import Tails

SettingsT_contra = TypeVar("SettingsT_contra", contravariant=True)


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """The training rows as a trainer gets them."""

    features: Features
    recipe: FittedRecipe
    tails: Tails
    """Fit rows, stopping tail, calibration tail."""


@dataclass(frozen=True, slots=True, eq=False)
class FittedModel:
    """The result of a fit."""

    model_bytes: bytes
    """ONNX."""
    input_kind: InputKind
    check_inputs: NDArray[Any]
    """Held-out windows (b, L, f) float32, or held-out times (b,) int64."""
    check_outputs: FloatArray
    """The trainer's own scaled predictions for them, (b, H, m) or (b, m): what the ONNX file must repeat."""
    metrics: Mapping[str, float | None]
    """Of the model that is shipped: ``train_`` and ``val_`` loss, rmse, mae, in scaled units."""
    rows_required: int
    """Rows that a request must bring: of a window model its window and the rows that its lags reach back."""
    residuals: Mapping[int, FloatArray] | None = None
    """Residuals in raw units by steps ahead; None: the exported model is rolled over the calibration tail."""
    history: tuple[Mapping[str, float | None], ...] = ()
    """Metrics of each epoch."""

    @property
    def window_steps(self) -> int:
        """Rows of a window; 1 of a model of times."""
        return self.check_inputs.shape[1] if self.input_kind == "window" else 1

    @property
    def horizon_steps(self) -> int:
        """Steps that one pass forecasts; 1 of a model of times."""
        return self.check_outputs.shape[1] if self.input_kind == "window" else 1

    def probe(self, rows: int = 2) -> dict[str, list[Any]]:
        """Return the first held-out inputs and the trainer's answers as plain numbers."""
        return {
            "inputs": self.check_inputs[:rows].tolist(),
            "outputs": np.asarray(self.check_outputs[:rows], dtype=np.float64).tolist(),
        }


class Report(Protocol):
    """A fit reports its progress through it."""

    def alive(self, detail: str) -> None:
        """Say that work goes on within an epoch; cheap, call it as often as you like."""
        ...

    def epoch_done(self, epoch: int, epochs: int, metrics: Mapping[str, float | None], *, loss: float | None) -> None:
        """Say that an epoch (from 1 on), or one of several fits, is done, and with what loss on held-out rows."""
        ...


class Fitter(Protocol[SettingsT_contra]):
    """A model type's fit: an object or a module with these functions."""

    def hash_parts(self, settings: SettingsT_contra) -> Mapping[str, Any]:
        """Return all that decides on the fit besides the data and the model's own settings: versions of libraries.

        Enters train_hash and is shown in the record.
        """
        ...

    def fit(self, data: TrainingSet, settings: SettingsT_contra, report: Report) -> FittedModel:
        """Fit on the training rows."""
        ...
