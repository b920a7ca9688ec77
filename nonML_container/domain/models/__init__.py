"""Models that are not networks. Each is a module with the functions of `flts.training.fitting.Fitter`.

`flts.trainers` lists them; a module has the name of its model type in lower case.
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
