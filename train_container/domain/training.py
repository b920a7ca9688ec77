"""Fit a network with Adam and a one-cycle learning rate, and keep the best epoch on the stopping tail."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flts.errors import RejectedError, SeriesTooShortError
from flts.forecasting.rolling import WINDOW_INPUT, can_roll
from flts.forecasting.splits import rows_needed
from flts.forecasting.windows import TrainingWindows, Windows, all_windows, training_windows
from flts.model_settings import TrainingSettings
from flts.training.fitting import FittedModel, HorizonTooShortError, Report, TrainingSet
from flts.training.onnx_file import to_bytes
from train_container.domain.direct.fitting import DIRECT_VERSION, fit_direct
from train_container.domain.direct.plan import Plan
from train_container.domain.losses import ScaledLoss, Scores
from train_container.domain.models import NeuralModel
from train_container.domain.shape import Shape

WARM_UP = 0.15
"""Share of all steps in which the learning rate rises to its peak."""
CLIP_NORM = 1.0
SCORE_BATCH = 4096
CHECKED_WINDOWS = 64
"""Held-out windows on which the ONNX file must repeat the network."""


class NeuralFitter:
    """Fits a registered network; a `flts.training.fitting.Fitter`.

    Parameters
    ----------
    model : NeuralModel
    threads : int
        Torch's threads.
    """

    def __init__(self, model: NeuralModel, *, threads: int) -> None:
        self._model = model
        self._threads = threads

    def hash_parts(self, settings: TrainingSettings, horizon: int | None) -> Mapping[str, Any]:
        """Return torch's version, and the horizon, the plan and the version of a direct network."""
        parts: dict[str, Any] = {"torch": importlib.metadata.version("torch")}
        if (plan := self._plan(settings)) is not None:
            parts |= {"direct_version": DIRECT_VERSION, "direct_horizon": horizon}
            parts |= {f"direct_{name}": value for name, value in asdict(plan).items()}
        return parts

    def fit(self, data: TrainingSet, settings: TrainingSettings, report: Report) -> FittedModel:
        """Fit a direct network, or with ``OUTPUT_SEQ_LEN`` a network of windows.

        A network of windows is fitted on the fit rows and stops early by the stopping tail; the calibration tail only
        checks the ONNX file.

        A refit fits all rows for as many epochs as the judged network, at the same learning rates.

        Raises
        ------
        SeriesTooShortError
            If there is no window to fit on or to stop by.
        HorizonTooShortError
            If the forecasts of a network of windows would end before the horizon, so that eval could not score it.
        RejectedError
            ``diverged`` if no epoch had a finite loss.
        """
        torch.set_num_threads(self._threads)
        if (plan := self._plan(settings)) is not None:
            return fit_direct(data, plan, report)
        _refuse_short_passes(data, settings)
        windows = _windows(data, settings)
        fit, stop = _tensors(windows.fit), _tensors(windows.stop)
        shape = Shape(settings.window_rows, fit.inputs.shape[2], settings.pass_steps, fit.targets.shape[2])
        torch.manual_seed(settings.seed)
        network = self._model.build(shape, settings)
        passes = None if data.judged is None else int(data.judged.metrics["best_epoch"] or settings.epochs)
        best = _train(network, fit, stop, settings, report, passes=passes)
        network.load_state_dict(best.weights)
        network.eval()
        model_bytes = to_bytes(self._model.to_onnx(network, shape))
        held_out = windows.calibrate if len(windows.calibrate) else windows.stop
        check_inputs = np.ascontiguousarray(held_out.inputs[:CHECKED_WINDOWS])
        with torch.inference_mode():
            check_outputs = network(torch.from_numpy(check_inputs)).numpy().astype(np.float64)
        loss = ScaledLoss(fit.targets)
        shipped = _score(network, fit, loss).named("train_")
        if data.judged is None:  # a refit has no rows that it was not fitted on
            shipped |= _score(network, stop, loss).named("val_")
        return FittedModel(
            model_bytes=model_bytes,
            input_kind="window",
            check_inputs={WINDOW_INPUT: check_inputs},
            check_outputs=check_outputs,
            rows_required=settings.window_rows + data.recipe.warmup_rows,
            fitted_rows=data.tails.stop_stop if data.judged is None else len(data.features),
            metrics={**shipped, "best_epoch": float(best.epoch), "epochs_run": float(len(best.history))},
            history=tuple(best.history),
        )

    def _plan(self, settings: TrainingSettings) -> Plan | None:
        """Return the plan of a direct network; None for a network of windows."""
        if self._model.cell is None or settings.output_seq_len is not None:
            return None
        return Plan.of(self._model.cell, settings)


def _refuse_short_passes(data: TrainingSet, settings: TrainingSettings) -> None:
    recipe, horizon = data.recipe, data.horizon or settings.pass_steps
    if can_roll(recipe) or settings.pass_steps >= horizon:
        return
    names = ", ".join(name for name in recipe.columns if name not in {*recipe.targets, *recipe.constants})
    msg = (
        f"it would forecast {settings.pass_steps} of {horizon} steps, because it does not forecast its inputs "
        f"{names[:200]}; OUTPUT_SEQ_LEN={horizon} trains it for all steps"
    )
    raise HorizonTooShortError(msg, field="OUTPUT_SEQ_LEN")


def _windows(data: TrainingSet, settings: TrainingSettings) -> TrainingWindows:
    """Return the windows of the training rows; a refusal names the number of rows that are needed."""
    lengths = {"input_seq_len": settings.window_rows, "output_seq_len": settings.pass_steps}
    try:
        windows = training_windows(data.features, data.recipe, data.tails, **lengths)
    except SeriesTooShortError as error:
        needed = rows_needed(
            **lengths,
            warmup_rows=data.recipe.warmup_rows,
            stop_tail=settings.stop_tail,
            calibration_tail=settings.calibration_tail,
        )
        msg = f"{error.message}; training needs at least {needed} rows in one piece"
        raise SeriesTooShortError(msg, field=error.field) from error
    if data.judged is None:
        return windows
    return replace(windows, fit=all_windows(data.features, data.recipe, **lengths))


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    inputs: Tensor
    targets: Tensor


@dataclass(slots=True, eq=False)
class _Best:
    history: list[dict[str, float | None]]
    weights: dict[str, Tensor]
    loss: float = float("inf")
    epoch: int = 0


def _train(
    network: nn.Module, fit: _Pairs, stop: _Pairs, settings: TrainingSettings, report: Report, *, passes: int | None
) -> _Best:
    """Train, and keep the epoch with the lowest loss on ``stop``, or after exactly ``passes`` epochs the last one."""
    loss = ScaledLoss(fit.targets)
    count = len(fit.inputs)
    steps = -(-count // settings.batch_size)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=steps * settings.epochs, pct_start=WARM_UP
    )
    shuffle = torch.Generator().manual_seed(settings.seed)
    best = _Best([], {})
    for epoch in range(1, (passes or settings.epochs) + 1):
        network.train()
        order = torch.randperm(count, generator=shuffle)
        scores = Scores()
        for number, start in enumerate(range(0, count, settings.batch_size), 1):
            batch = order[start : start + settings.batch_size]
            expected = fit.targets[batch]
            answer = network(fit.inputs[batch])
            value = loss(answer, expected)
            optimiser.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]  # torch has not annotated it
            nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
            optimiser.step()
            schedule.step()
            scores.add(value.detach(), answer.detach(), expected)
            report.alive(f"epoch {epoch}, batch {number} of {steps}")
        held_out = _score(network, stop, loss)
        metrics = scores.named("train_") | held_out.named("val_")
        best.history.append(metrics)
        report.epoch_done(epoch, passes or settings.epochs, metrics, loss=held_out.loss)
        if epoch == passes or (passes is None and held_out.loss < best.loss):
            best.loss, best.epoch = held_out.loss, epoch
            best.weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        elif passes is None and settings.early_stopping and epoch - best.epoch >= settings.patience:
            break
    if not best.weights:
        msg = f"no epoch ended with a finite loss; LEARNING_RATE {settings.learning_rate:g} may be too high"
        raise RejectedError(msg, code="diverged", field="LEARNING_RATE")
    return best


@torch.inference_mode()
def _score(network: nn.Module, pairs: _Pairs, loss: ScaledLoss) -> Scores:
    network.eval()
    scores = Scores()
    for start in range(0, len(pairs.inputs), SCORE_BATCH):
        expected = pairs.targets[start : start + SCORE_BATCH]
        answer = network(pairs.inputs[start : start + SCORE_BATCH])
        scores.add(loss(answer, expected), answer, expected)
    return scores


def _tensors(windows: Windows) -> _Pairs:
    """Return tensors that share the memory of overlapping windows; only the windows of a batch are copied."""
    return _Pairs(torch.from_numpy(windows.inputs), torch.from_numpy(windows.targets))
