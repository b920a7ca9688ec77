"""The registry of trainers: one entry per deployment. All other names of trainers are derived from it.

The embedded mode, the gateway, eval, the trainers, the dashboards and the alert rules read the registry. `make
generate` writes the trainers' services in Compose and in the chart from it. CONTRIBUTING.md describes how to add a
model type.
"""

from __future__ import annotations

from dataclasses import dataclass

from flts.model_settings import ProphetSettings, TrainingSettings
from flts.settings import WindowSettings

SHORT_ROWS, MOST_COLUMNS = 500, 128
"""Training rows from which on no model type of `SHORT_SERIES` is trained, and no run waits for one; and most columns,
time features and lags included, for which one is. THETA takes up to 0.07 s of CPU per target."""
SHORT_SERIES = ("THETA",)
"""Model types for short series. More rows show more than a level, a trend and a season, and LINEAR reads it."""
BASELINES = ("PERSISTENCE", "SEASONAL_NAIVE", "RIDGE", "MEAN")
"""Model types with which eval compares every candidate, in scoreboard order; no run waits for or promotes them."""

COMBINATION = "COMBINATION"
"""Model type of the candidate that eval makes of the other candidates of a run; it has no trainer."""


@dataclass(frozen=True, slots=True)
class Trainer:
    """A model type and the deployment that trains it."""

    model_type: str
    """In messages, bundles, scoreboards, ``EXPECTED_MODEL_TYPES``: ``GRU``; for a trainer of several only the
    ``MODEL_TYPE``."""
    package: str
    """Folder of the service; the module ``domain.models.<model type in lower case>`` in it fits the model."""
    deployment: str
    """``train-gru``: also the consumer group, the stage of a run, the Compose service and `service` of logs."""
    settings: type[WindowSettings]
    """The settings of the model: a run may override them, and only they enter the model's train_hash."""
    port: int
    """Port of /healthz, /readyz and /metrics on the host, in the embedded mode and under Compose."""
    enabled: bool = True
    """Whether an installation runs the trainer by default."""
    baselines: tuple[str, ...] = ()
    """Model types that the trainer trains from one message in place of `model_type`; no run waits for them."""
    candidates: tuple[str, ...] = ()
    """Model types that the trainer of the baselines trains from the same message and that a run waits for. The trainer
    has no MLflow, so eval records them there."""

    @property
    def model_types(self) -> tuple[str, ...]:
        """Return the model types in the messages and bundles of the trainer, in the order of its messages.

        A candidate's message comes before those of the baselines: a result of a baseline then shows that a trainer of
        an earlier release, which does not know the candidate, made the baselines (`announced_after`).
        """
        return (*self.candidates, *self.baselines) or (self.model_type,)

    @property
    def awaited(self) -> tuple[str, ...]:
        """Return the model types of the trainer that a run waits for."""
        return self.candidates if self.baselines else (self.model_type,)

    @property
    def module(self) -> str:
        """Return the name of the module that fits the model."""
        return f"{self.package}.domain.models.{self.model_type.lower()}"


TRAINERS = (
    Trainer("GRU", "train_container", "train-gru", TrainingSettings, port=8021),
    Trainer("LSTM", "train_container", "train-lstm", TrainingSettings, port=8023),
    Trainer("PROPHET", "nonML_container", "nonml-prophet", ProphetSettings, port=8022),
    Trainer("HOLT", "nonML_container", "nonml-holt", WindowSettings, port=8025, enabled=False),
    Trainer(
        "BASELINE",
        "nonML_container",
        "nonml-baseline",
        WindowSettings,
        port=8026,
        baselines=BASELINES,
        candidates=("LINEAR", "THETA"),
    ),
)
NETWORKS = tuple(trainer.model_type for trainer in TRAINERS if trainer.package == "train_container")
"""Model types whose fit begins at random weights; the other fits are formulas."""
DEPLOYMENTS = tuple(trainer.deployment for trainer in TRAINERS)
DEFAULT_MODEL_TYPES = tuple(name for trainer in TRAINERS if trainer.enabled for name in trainer.awaited)
NEVER_REFITTED = ("PERSISTENCE", "SEASONAL_NAIVE")
"""Model types that repeat rows of the request: a fit on more rows is the same model."""
RECORDED_BY_EVAL = tuple(name for trainer in TRAINERS for name in trainer.candidates)
"""Candidates whose trainer has no MLflow."""


def trainer_of(model_type: str) -> Trainer:
    """Return the trainer of a ``MODEL_TYPE``; upper and lower case are the same.

    Raises
    ------
    ValueError
        If no trainer is registered for it; the message lists the registered model types.
    """
    for trainer in TRAINERS:
        if trainer.model_type == model_type.upper():
            return trainer
    known = ", ".join(trainer.model_type for trainer in TRAINERS)
    msg = f"{model_type} is no registered model type; there are {known}"
    raise ValueError(msg)


def trainer_of_model(model_type: str) -> Trainer | None:
    """Return the trainer whose messages and bundles have this model type, or None."""
    return next((trainer for trainer in TRAINERS if model_type in trainer.model_types), None)


def trained_in(package: str, model_type: str) -> str:
    """Return a model type of the service in this folder, in upper case.

    Raises
    ------
    ValueError
        If the service does not have this model type.
    """
    known = [trainer.model_type for trainer in TRAINERS if trainer.package == package]
    if model_type.upper() not in known:
        msg = f"{model_type} is no registered model; there are {', '.join(known)}"
        raise ValueError(msg)
    return model_type.upper()


def trained_by(deployment: str) -> tuple[str, ...]:
    """Return the model types that a deployment trains; an empty tuple if it is not a trainer."""
    return next((trainer.model_types for trainer in TRAINERS if trainer.deployment == deployment), ())


def announced_after(model_type: str) -> tuple[str, ...]:
    """Return the model types that the same trainer announces after this one; empty for an unknown model type."""
    for trainer in TRAINERS:
        if model_type in trainer.model_types:
            return trainer.model_types[trainer.model_types.index(model_type) + 1 :]
    return ()


def trainers_for(model_types: tuple[str, ...]) -> tuple[Trainer, ...]:
    """Return the trainers of these model types and the trainer of the baselines."""
    return tuple(trainer for trainer in TRAINERS if trainer.baselines or trainer.model_type in model_types)


def trained_on(model_types: tuple[str, ...], rows: int, columns: int) -> tuple[str, ...]:
    """Return those of some model types that are trained on so many rows and columns, in their order.

    ``rows`` and ``columns`` are those of ``TrainingData``, so the trainer and eval come to the same result.
    """
    short = rows < SHORT_ROWS and columns <= MOST_COLUMNS
    return tuple(name for name in model_types if short or name not in SHORT_SERIES)


def known_model_types(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the model types that a run waits for, in upper case, without duplicates, in their order.

    Raises
    ------
    ValueError
        If ``names`` has no model type for long series, or if a name has no trainer or is a baseline.
    """
    if not names:
        msg = "names at least one model type"
        raise ValueError(msg)
    awaited = [each for trainer in TRAINERS for each in trainer.awaited]
    for name in names:
        if name.upper() in {"BASELINE", *BASELINES}:
            msg = f"{name} is a baseline: no run waits for it"
            raise ValueError(msg)
        if name.upper() not in awaited:
            msg = f"{name} is no registered model type; there are {', '.join(awaited)}"
            raise ValueError(msg)
    if all(name.upper() in SHORT_SERIES for name in names):
        msg = f"{', '.join(names)} is trained on fewer than {SHORT_ROWS} rows only: name another model type too"
        raise ValueError(msg)
    return tuple(dict.fromkeys(name.upper() for name in names))
