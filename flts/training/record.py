"""The record of one training in MLflow, or nowhere: nothing here can fail a training."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from flts.contracts.events import TrainingData
from flts.observability.logs import get_logger

if TYPE_CHECKING:
    from flts.contracts.claim_check import ClaimCheck
    from flts.tracking.mlflow import Tracker

LOSS_PLOT = "plots/loss.png"
PREPROCESS_CONFIG = "preprocess/preprocess_config.json"

log = get_logger(__name__)


class Record:
    """One tracked run, from its start to its end whatever happens in between.

    Parameters
    ----------
    tracker : Tracker or None
        None keeps no record.
    event : TrainingData
    run_id : str
    parameters : mapping
        Shown as the run's parameters.
    reused : bool
        Whether a stored bundle is only announced again.
    """

    def __init__(
        self,
        tracker: Tracker | None,
        event: TrainingData,
        run_id: str,
        parameters: Mapping[str, Any],
        *,
        reused: bool = False,
    ) -> None:
        self._tracker = tracker
        self._identifier = event.identifier
        self._run_id = run_id
        self._closed = tracker is None
        self._last_epoch = 0
        self._run = None
        if tracker is not None:
            model_type = str(parameters["model_type"])
            self._run = tracker.start_run(
                run_id,
                event.identifier,
                f"{model_type}-{event.pipeline_run_id}",
                parameters,
                {
                    "run_id": run_id,
                    "model_type": model_type,
                    "identifier": event.identifier,
                    "pipeline_run_id": event.pipeline_run_id,
                    "config_hash": event.config_hash or "",
                    "reused": str(reused).lower(),
                },
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._closed and self._run is not None:
            self._closed = True
            self._run.finish("FAILED")

    @property
    def wanted(self) -> bool:
        """Whether anybody keeps this record."""
        return self._run is not None

    def epoch(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """Record an epoch's metrics, and the machine's."""
        self._last_epoch = epoch
        if self._run is not None:
            self._run.log_metrics(epoch, **_numbers(metrics))
            self._run.log_system_metrics(epoch)

    def final(self, metrics: Mapping[str, float | None]) -> None:
        """Record the shipped model's metrics: as ``final_...``, and as the last value of each epoch's metric."""
        if self._run is None:
            return
        shipped = _numbers(metrics)
        final = {f"final_{name}": value for name, value in shipped.items()}
        self._run.log_metrics(self._last_epoch + 1, **shipped, **final)

    def history(self, epochs: Sequence[Mapping[str, float | None]]) -> None:
        """Record a plot of the losses by epoch."""
        if self._run is not None and epochs:
            self._run.log_bytes(LOSS_PLOT, loss_plot(epochs))

    def bundle(self, model_type: str, bundle_json: bytes, model_bytes: bytes) -> None:
        """Record a copy of the bundle."""
        if self._run is not None:
            self._run.log_bytes(f"{model_type}/model.onnx", model_bytes)
            self._run.log_bytes(f"{model_type}/bundle.json", bundle_json)

    def preprocess_config(self, meta: Mapping[str, Any]) -> None:
        """Record how the rows were made."""
        if self._run is not None:
            self._run.log_text(PREPROCESS_CONFIG, json.dumps(meta, indent=1, sort_keys=True))

    def close(self, claim: ClaimCheck) -> str | None:
        """End the run well, register its model, and return MLflow's own id unless MLflow is away."""
        self._closed = True
        if self._run is None or self._tracker is None:
            return None
        mlflow_run_id = self._run.finish("FINISHED")
        folder = claim.object_key.rpartition("/")[0]
        self._tracker.register(self._run_id, self._identifier, f"s3://{claim.bucket}/{folder}")
        return mlflow_run_id


def loss_plot(epochs: Sequence[Mapping[str, float | None]]) -> bytes:
    """Return a PNG of the training and validation loss by epoch."""
    # Imported where it is drawn: 0.4 s that no process needs before its first training has ended.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - see above
    from matplotlib.figure import Figure  # noqa: PLC0415 - see above

    figure = Figure(figsize=(6, 3.5), dpi=90, layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    numbers = range(1, len(epochs) + 1)
    for name, label in (("train_loss", "training"), ("val_loss", "stopping tail")):
        axes.plot(numbers, [epoch[name] or 0.0 for epoch in epochs], marker=".", label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.legend()
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()


def _numbers(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if value is not None}
