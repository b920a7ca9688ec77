"""The record of one training in MLflow. An error here does not fail the training."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from flts.bundle import BUNDLE_FILE, MODEL_FILE
from flts.bundle.format import Bundle
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import TrainingData
from flts.killpoints import reached
from flts.storage import layout

if TYPE_CHECKING:
    from flts.tracking.mlflow import Tracker

LOSS_PLOT = "plots/loss.png"
PREPROCESS_CONFIG = "preprocess/preprocess_config.json"


class Record:
    """The MLflow run of one training; as a context manager it ends the run also after an error.

    Parameters
    ----------
    tracker : Tracker or None
        None records nothing.
    event : TrainingData
    run_id : str
    parameters : mapping
        Parameters of the MLflow run.
    reused : bool
        Whether the trainer announces a stored bundle instead of a new one.
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
        self._closed = tracker is None
        self._last_epoch = 0
        self._run = None
        if tracker is not None:
            model_type = str(parameters["model_type"])
            reached("record-begin.before", event.identifier)
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
            reached("record-begin.after", event.identifier)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._closed and self._run is not None:
            self._closed = True
            self._run.finish("FAILED")

    def epoch(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """Record an epoch's metrics and the system metrics of the machine."""
        self._last_epoch = epoch
        if self._run is not None:
            self._run.log_metrics(epoch, **_numbers(metrics))
            self._run.log_system_metrics(epoch)

    def final(self, metrics: Mapping[str, float | None]) -> None:
        """Record the metrics of the bundle's model: as ``final_...``, and as the last value of each epoch metric."""
        if self._run is None:
            return
        shipped = _numbers(metrics)
        final = {f"final_{name}": value for name, value in shipped.items()}
        self._run.log_metrics(self._last_epoch + 1, **shipped, **final)

    def history(self, epochs: Sequence[Mapping[str, float | None]]) -> None:
        """Record a plot of the losses by epoch."""
        if self._run is not None and epochs:
            self._run.log_bytes(LOSS_PLOT, loss_plot(epochs))

    def close(self, event: TrainingData, claim: ClaimCheck, bundle: Bundle) -> str | None:
        """Add the bundle and the description of its rows as artifacts, register the model and end the run.

        Returns
        -------
        str or None
            MLflow's id of the run; None if MLflow is unavailable or nothing is recorded.
        """
        self._closed = True
        if self._run is None:
            return None
        model = ClaimCheck(
            bucket=claim.bucket,
            object_key=layout.beside(claim.object_key, MODEL_FILE),
            size=bundle.model_size,
            sha256=bundle.model_sha256,
        )
        self._run.log_claim(f"{bundle.model_type}/{MODEL_FILE}", model)
        self._run.log_claim(f"{bundle.model_type}/{BUNDLE_FILE}", claim)
        self._run.log_claim(PREPROCESS_CONFIG, event.meta)
        self._run.register(f"s3://{claim.bucket}/{layout.folder_of(claim.object_key)}", bundle.model_type)
        reached("record-end.before", event.identifier)
        mlflow_run_id = self._run.finish("FINISHED")
        reached("record-end.after", event.identifier)
        return mlflow_run_id


def loss_plot(epochs: Sequence[Mapping[str, float | None]]) -> bytes:
    """Return a PNG of the losses by epoch: of every metric whose name ends with ``loss``, where an epoch has it.

    The parts of a direct network are trained one after the other, and each has losses of its own.
    """
    # matplotlib is imported here: the import takes 0.4 s, and a process needs it only after its first training.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - see above
    from matplotlib.figure import Figure  # noqa: PLC0415 - see above

    figure = Figure(figsize=(6, 3.5), dpi=90, layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name in dict.fromkeys(name for epoch in epochs for name in epoch if name.endswith("loss")):
        found = {number: loss for number, epoch in enumerate(epochs, 1) if (loss := epoch.get(name)) is not None}
        words = name.removesuffix("_loss").split("_")
        label = " ".join({"train": "training", "val": "stopping tail"}.get(word, word) for word in words)
        axes.plot(list(found), list(found.values()), marker=".", label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.legend()
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()


def _numbers(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if value is not None}
