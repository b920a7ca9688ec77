"""Settings classes of model types, which their trainers and the registry share."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from flts.settings import WindowSettings


class TrainingSettings(WindowSettings):
    """Training of the neural models. All settings enter train_hash.

    The defaults are those of a network of windows. A direct network, which GRU and LSTM are unless `OUTPUT_SEQ_LEN` is
    a number, has values of its own for settings that are not given.
    """

    OVERRIDABLE: ClassVar[bool] = True

    hidden_size: int = Field(default=128, ge=1, le=4096)
    """Number of units in each layer. Direct networks: 64 if it is not given."""
    num_layers: int = Field(default=2, ge=1, le=8)
    """Number of layers. Direct networks: 1 if it is not given."""
    epochs: int = Field(default=10, ge=1, le=10_000)
    """Maximum number of passes over the training windows. Direct networks: if it is not given, as
    many as 1,000 optimiser steps need for the correction and 1,500 for the segments; a pass has at most 125 steps."""
    batch_size: int = Field(default=256, ge=1, le=65_536)
    """Windows per optimiser step. Direct networks: 64 if it is not given."""
    learning_rate: float = Field(default=4e-3, gt=0, le=1)
    """Peak learning rate of the one-cycle schedule. Direct networks: 0.002 if it is not given."""
    early_stopping: bool = True
    """Stop after `PATIENCE` epochs without a lower loss on the stopping tail. Direct networks: only if `EPOCHS` is
    given."""
    patience: int = Field(default=5, ge=1, le=10_000)
    """Epochs without improvement before training stops."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout between layers. Direct networks: in the head too, and 0.2 if it is not given."""
    seed: int = 42
    """Seed of weights and shuffling."""


class ProphetSettings(WindowSettings):
    """Prophet's parameters. All settings enter train_hash."""

    OVERRIDABLE: ClassVar[bool] = True

    prophet_changepoint_prior_scale: float = Field(default=0.05, gt=0)
    """Flexibility of the trend."""
    prophet_seasonality_prior_scale: float = Field(default=10.0, gt=0)
    """Strength of the seasonalities."""
    prophet_seasonality_mode: Literal["additive", "multiplicative"] = "additive"
    """Whether seasonalities are added to the trend or multiply it."""
    prophet_n_changepoints: int = Field(default=25, ge=0, le=1000)
    """Number of potential changes of the trend."""
    prophet_changepoint_range: float = Field(default=0.8, gt=0, le=1)
    """Share of the history in which the trend may change."""
    prophet_daily_seasonality: Literal["auto", "true", "false"] = "auto"
    """Daily seasonality; `auto` switches it on if the history is long and dense enough."""
    prophet_weekly_seasonality: Literal["auto", "true", "false"] = "auto"
    """Weekly seasonality; `auto` switches it on if the history is long and dense enough."""
    prophet_yearly_seasonality: Literal["auto", "true", "false"] = "auto"
    """Yearly seasonality; `auto` switches it on if the history is long and dense enough."""
    seed: int = 42
    """Seed of the optimiser's start."""
