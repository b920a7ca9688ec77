"""Models that are no network: each is one module of functions as `flts.training.fitting.Fitter` says.

`flts.trainers` lists them; the module has the model type's name in lower case.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from flts.trainers import Trainer

if TYPE_CHECKING:
    from flts.training.fitting import Fitter
    from nonML_container.settings import NonmlSettings


def load_model(trainer: Trainer) -> Fitter[NonmlSettings]:
    """Import a registered model's module."""
    return cast("Fitter[NonmlSettings]", importlib.import_module(trainer.module))
