"""The registry of trainers: one entry per deployment, from which everything else derives its names.

Embedded mode, gateway, eval, the trainers, dashboards and alert rules read it; `make generate` writes the trainers'
blocks of Compose and chart from it. CONTRIBUTING.md has the recipe for a new model type.
"""

from __future__ import annotations

from dataclasses import dataclass

from flts.settings import ProphetSettings, TrainingSettings, WindowSettings

BASELINES = ("PERSISTENCE", "SEASONAL_NAIVE", "RIDGE", "MEAN")
"""Model types that every run is measured against, in the scoreboard's order; not waited for and not promoted."""


@dataclass(frozen=True, slots=True)
class Trainer:
    """A model type and the deployment that trains it."""

    model_type: str
    """In messages, bundles, scoreboards and ``EXPECTED_MODEL_TYPES``: ``GRU``; of baselines their ``MODEL_TYPE``."""
    package: str
    """Folder of the service; its module ``domain.models.<model type in lower case>`` fits the model."""
    deployment: str
    """``train-gru``: also the consumer group, the stage of a run, the Compose service and `service` of logs."""
    settings: type[WindowSettings]
    """The model's own settings: a run may override them, and only they enter its train_hash."""
    port: int
    """Port of /healthz, /readyz and /metrics on a developer's machine, embedded and under Compose."""
    enabled: bool = True
    """Whether an installation trains it by default."""
    baselines: tuple[str, ...] = ()
    """Model types that it trains instead of one, all from one message; no run waits for them."""

    @property
    def model_types(self) -> tuple[str, ...]:
        """Return the model types in its messages and bundles."""
        return self.baselines or (self.model_type,)

    @property
    def module(self) -> str:
        """Return the name of the module that fits the model."""
        return f"{self.package}.domain.models.{self.model_type.lower()}"


TRAINERS = (
    Trainer("GRU", "train_container", "train-gru", TrainingSettings, port=8021),
    Trainer("LSTM", "train_container", "train-lstm", TrainingSettings, port=8023),
    Trainer("PROPHET", "nonML_container", "nonml-prophet", ProphetSettings, port=8022),
    Trainer("HOLT", "nonML_container", "nonml-holt", WindowSettings, port=8025, enabled=False),
    Trainer("BASELINE", "nonML_container", "nonml-baseline", WindowSettings, port=8026, baselines=BASELINES),
)
DEPLOYMENTS = tuple(trainer.deployment for trainer in TRAINERS)
DEFAULT_MODEL_TYPES = tuple(trainer.model_type for trainer in TRAINERS if trainer.enabled and not trainer.baselines)


def trainer_of(model_type: str) -> Trainer:
    """Return the trainer of a ``MODEL_TYPE``, in any case.

    Raises
    ------
    ValueError
        If no trainer is registered for it, naming those that are.
    """
    for trainer in TRAINERS:
        if trainer.model_type == model_type.upper():
            return trainer
    known = ", ".join(trainer.model_type for trainer in TRAINERS)
    msg = f"{model_type} is no registered model type; there are {known}"
    raise ValueError(msg)


def trained_in(package: str, model_type: str) -> str:
    """Return a model type in upper case.

    Raises
    ------
    ValueError
        If the service in this folder has no such model.
    """
    known = [trainer.model_type for trainer in TRAINERS if trainer.package == package]
    if model_type.upper() not in known:
        msg = f"{model_type} is no registered model; there are {', '.join(known)}"
        raise ValueError(msg)
    return model_type.upper()


def trained_by(deployment: str) -> tuple[str, ...]:
    """Return the model types that a deployment trains: none of a service that trains nothing."""
    return next((trainer.model_types for trainer in TRAINERS if trainer.deployment == deployment), ())


def trainers_for(model_types: tuple[str, ...]) -> tuple[Trainer, ...]:
    """Return the trainers that run where these model types are trained: theirs, and that of the baselines."""
    return tuple(trainer for trainer in TRAINERS if trainer.baselines or trainer.model_type in model_types)


def known_model_types(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return model types that a run waits for in upper case, each once, in their order.

    Raises
    ------
    ValueError
        If there is none, or one has no trainer or is a baseline.
    """
    if not names:
        msg = "names at least one model type"
        raise ValueError(msg)
    for name in names:
        if name.upper() in {"BASELINE", *BASELINES}:
            msg = f"{name} is a baseline: no run waits for it"
            raise ValueError(msg)
    return tuple(dict.fromkeys(trainer_of(name).model_type for name in names))
