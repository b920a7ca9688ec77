"""The interface of a model type: it makes a model file of training rows, and predictions to check the file with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from flts.bundle.format import Bundle
from flts.bundle.tensors import InputKind
from flts.errors import RejectedError
from flts.forecasting.direct import PAST
from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.limits import Limits
from flts.forecasting.quantiles import Point
from flts.forecasting.recipe import Features
from flts.forecasting.rolling import WINDOW_INPUT, Inputs
from flts.forecasting.series import FloatArray
from flts.forecasting.splits import Tails

SettingsT_contra = TypeVar("SettingsT_contra", contravariant=True)


class HorizonTooShortError(RejectedError):
    """The forecasts of the model would end before the horizon."""

    code = "horizon_too_short"


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """The training rows with their recipe and their tails; in a refit the test rows follow the training rows."""

    features: Features
    recipe: FittedRecipe
    tails: Tails
    """Fit rows, stopping tail, calibration tail of the training rows."""
    limits: Mapping[str, Limits] = field(default_factory=dict)
    """Lowest and highest value of forecasts of varying targets in raw units, None without one."""
    point: Point = "mean"
    """``median``: the bundle moves its forecasts by the median residual."""
    horizon: int | None = None
    """Steps that the run's models are judged at and served for (``TrainingData.horizon_steps``)."""
    judged: Bundle | None = None
    """In a refit the bundle that was judged, with the quantiles of its intervals; else None.

    A refit fits all rows with the settings and choices of the judged model. It uses no tail to stop, to choose or to
    calibrate by."""


@dataclass(frozen=True, slots=True, eq=False)
class FittedModel:
    """The result of a fit."""

    model_bytes: bytes
    """ONNX."""
    input_kind: InputKind
    check_inputs: Inputs
    """Held-out inputs by the names of the model's tensors; the first dimension of each is b."""
    check_outputs: FloatArray
    """The trainer's scaled predictions for ``check_inputs``, (b, H, m) or (b, m); the ONNX file must repeat them."""
    metrics: Mapping[str, float | None]
    """Metrics of this model: ``train_`` and ``val_`` loss, rmse, mae, in scaled units."""
    rows_required: int
    """Rows that a forecast request must contain; for a window model its window and the rows that its lags need."""
    fitted_rows: int
    """Training rows, from the first one on, that determine the model; 0 for a model without fitted numbers."""
    residuals: Mapping[int, FloatArray] | None = None
    """Residuals in raw units by steps ahead; None: computed with the exported model on the calibration tail."""
    history: tuple[Mapping[str, float | None], ...] = ()
    """Metrics of each epoch."""
    seasons: tuple[int, ...] = ()
    """Lengths in rows of the seasons of a direct model's ``places``."""
    recipe: FittedRecipe | None = None
    """Recipe of the model's inputs and units; None: that of the training rows."""

    @property
    def window_steps(self) -> int:
        """Rows of a window; 1 for a model that reads no values of the past."""
        windows = self.check_inputs.get(WINDOW_INPUT if self.input_kind == "window" else PAST)
        return 1 if windows is None else windows.shape[1]

    @property
    def horizon_steps(self) -> int:
        """Steps that one pass forecasts; 1 for a model of times."""
        return 1 if self.input_kind == "timestamps" else self.check_outputs.shape[1]

    def probe(self, rows: int = 2) -> tuple[Inputs, FloatArray]:
        """Return the first held-out inputs, and the trainer's predictions as float64."""
        inputs = {name: values[:rows] for name, values in self.check_inputs.items()}
        return inputs, np.asarray(self.check_outputs[:rows], dtype=np.float64)


class Report(Protocol):
    """The receiver of a fit's progress."""

    def alive(self, detail: str) -> None:
        """Report that work goes on within an epoch; a fit may call it often."""
        ...

    def epoch_done(self, epoch: int, epochs: int, metrics: Mapping[str, float | None], *, loss: float | None) -> None:
        """Report that an epoch (counted from 1) or one of several fits is done, and its loss on held-out rows."""
        ...


class Fitter(Protocol[SettingsT_contra]):
    """A model type's fit: an object or a module with these functions."""

    def hash_parts(self, settings: SettingsT_contra, horizon: int | None) -> Mapping[str, Any]:
        """Return all that determines the fit besides the data and the model's own settings.

        It is the versions of libraries, and ``horizon`` (`TrainingSet.horizon`) if the model depends on it.

        These values are part of train_hash and are parameters of the MLflow run.
        """
        ...

    def fit(self, data: TrainingSet, settings: SettingsT_contra, report: Report) -> FittedModel:
        """Fit on the training rows, or in a refit on all rows."""
        ...
