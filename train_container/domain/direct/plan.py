"""The sizes of direct networks and of their training."""

from __future__ import annotations

from dataclasses import dataclass

from flts.forecasting.quantiles import Point
from flts.model_settings import TrainingSettings

CHOSEN = {"hidden_size": 64, "num_layers": 1, "batch_size": 64, "learning_rate": 2e-3, "dropout": 0.2}
"""Values of the settings that are not given. The defaults in `TrainingSettings` are those of a window network."""
LEAST_STEPS = 1_000
"""Optimiser steps of the correction at least, unless ``EPOCHS`` is given."""
SEGMENT_STEPS = 1_500
"""Those of the segments, which begin further from their best forecast."""
PASS_STEPS = 125
"""Optimiser steps of a pass at most, so that its cost does not grow with the rows and the series."""
SHORT_PASS_STEPS = 32
"""Steps of a pass at least, unless ``EPOCHS`` is given: a short series is repeated in one pass."""
WINDOW_ROWS = 48
"""Rows that the correction reads, unless ``INPUT_SEQ_LEN`` is given."""


LEAST_BATCHES, LEAST_BATCH = 16, 8
"""Batches of a pass at least, of as many samples at least: a short series has smaller batches."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes and training of the networks of a cell.

    Parameters
    ----------
    cell : {"GRU", "LSTM"}
        Class of torch's recurrent layers.
    hidden, layers : int
        Of both forms.
    dropout, rate : float
    batch : int
        Windows of an optimiser step of the correction; the segments have twice as many, of single targets.
    seed : int
    window : int
        Rows that the correction reads.
    passes : int, optional
        ``EPOCHS`` if it is given.
    patience : int, optional
        Passes without a lower loss after which a training with given passes stops; None for no early stop.
    point : {"mean", "median"}
        What the networks forecast.
    """

    cell: str
    hidden: int
    layers: int
    dropout: float
    rate: float
    batch: int
    seed: int
    window: int
    passes: int | None
    patience: int | None
    point: Point

    @classmethod
    def of(cls, cell: str, settings: TrainingSettings) -> Plan:
        """Return the plan of settings; what they do not give has the values of `CHOSEN`."""
        given = settings.model_fields_set

        def value(name: str) -> float:
            return float(getattr(settings, name) if name in given else CHOSEN[name])

        return cls(
            cell=cell,
            hidden=int(value("hidden_size")),
            layers=int(value("num_layers")),
            dropout=value("dropout"),
            rate=value("learning_rate"),
            batch=int(value("batch_size")),
            seed=settings.seed,
            window=settings.input_seq_len or WINDOW_ROWS,
            passes=settings.epochs if "epochs" in given else None,
            patience=settings.patience if settings.early_stopping else None,
            point=settings.point,
        )

    def steps_of(self, samples: int, batch: int) -> int:
        """Return the optimiser steps of a pass over samples in batches of this size."""
        steps = -(-samples // batch)
        if self.passes is None:
            steps *= -(-SHORT_PASS_STEPS // steps)
        return min(steps, PASS_STEPS)

    def passes_of(self, samples: int, batch: int, least: int) -> int:
        """Return the passes over samples in batches of this size: those given, or of ``least`` optimiser steps."""
        return self.passes or -(-least // self.steps_of(samples, batch))


def batch_of(samples: int, most: int) -> int:
    """Return the samples of an optimiser step, at most ``most``."""
    return min(most, max(LEAST_BATCH, samples // LEAST_BATCHES))
