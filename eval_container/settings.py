"""Settings of eval."""

from __future__ import annotations

import math
from typing import Self

from pydantic import Field, field_validator, model_validator

from flts.settings import (
    CommaSeparated,
    KafkaSettings,
    RefitSettings,
    RetentionSettings,
    ServiceSettings,
    TrackingSettings,
    WindowSettings,
    split_commas,
)
from flts.trainers import DEFAULT_MODEL_TYPES, known_model_types


class EvalSettings(ServiceSettings, KafkaSettings, RetentionSettings, TrackingSettings, WindowSettings, RefitSettings):
    """Settings of waiting, scoring and the gate."""

    service_port: int = Field(default=8050, ge=1, le=65535)
    """Port of /healthz, /readyz and /metrics."""
    expected_model_types: CommaSeparated = DEFAULT_MODEL_TYPES
    """Model types that a run is decided on: those whose trainers are deployed. `nonml-baseline` trains `LINEAR` and
    `THETA`. No run on 500 or more training rows waits for `THETA`."""
    eval_silence_seconds: float = Field(default=300, gt=0)
    """Eval stops waiting for a model type that sent no event or progress in any run for this long."""
    eval_max_seconds: float = Field(default=7200, gt=0)
    """Longest time from a run's training data to its decision."""
    eval_tick_seconds: float = Field(default=5, gt=0)
    """Time between two looks for runs that waited too long or were left half finished."""
    gate_min_skill: float = Field(default=0.02, le=1)
    """Least share of the best baseline's error that a model must save; below 0 also switches the tests off."""
    gate_significance: float = Field(default=0.02, gt=0, lt=1)
    """Chance that a run promotes a candidate whose skill is luck; see docs/decisions/0002-gate.md."""
    gate_against_champion: bool = True
    """The current champion keeps its place where the new model is worse by more than 1 % on the run's test rows."""
    score_weights: CommaSeparated = ("0.5", "0.3", "0.2")
    """Weights of RMSE, MAE and MSE (scaled) in the composite."""
    score_horizons: CommaSeparated = ()
    """Steps ahead that are scored, `1,2,3`; empty: every step of the horizon."""
    spool_drain_seconds: float = Field(default=30, gt=0)
    """Time between two attempts to record spooled documents in MLflow."""
    janitor_period_seconds: float = Field(default=86_400, gt=0)
    """Time between two rounds of the janitor."""

    _split = split_commas("expected_model_types", "score_weights", "score_horizons")

    @field_validator("expected_model_types")
    @classmethod
    def _some_types(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return known_model_types(value)

    @model_validator(mode="after")
    def _numbers(self) -> Self:
        try:
            weights = tuple(float(weight) for weight in self.score_weights)
            horizons = tuple(int(step) for step in self.score_horizons)
        except ValueError:
            msg = "SCORE_WEIGHTS, SCORE_HORIZONS: must be numbers"
            raise ValueError(msg) from None
        usable = all(math.isfinite(weight) and weight >= 0 for weight in weights)
        if len(weights) != 3 or not usable or sum(weights) == 0:  # noqa: PLR2004 - RMSE, MAE and MSE
            msg = "SCORE_WEIGHTS: three numbers of at least 0, not all 0"
            raise ValueError(msg)
        if any(step < 1 for step in horizons):
            msg = "SCORE_HORIZONS: steps of at least 1"
            raise ValueError(msg)
        return self

    def weights(self) -> tuple[float, float, float]:
        """Return the weights of RMSE, MAE and MSE."""
        rmse, mae, mse = (float(weight) for weight in self.score_weights)
        return rmse, mae, mse

    def scored_steps(self, horizon_steps: int) -> tuple[int, ...]:
        """Return the steps ahead that are scored."""
        named = tuple(sorted({int(step) for step in self.score_horizons}))
        return named or tuple(range(1, horizon_steps + 1))
