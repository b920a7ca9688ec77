"""The JSON body of an answer to ``POST /predict``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from flts.times import TimeFormat
from inference_container.domain.batching import Answer
from inference_container.domain.requested_quantiles import quantile_keys, quantile_values
from inference_container.domain.times import WritesTimes

_encode = msgspec.json.Encoder().encode


def answer_body(
    answer: Answer,
    style: WritesTimes,
    *,
    levels: Sequence[float] = (),
    history_until: int | None = None,
    now: float = 0.0,
) -> bytes:
    """Return the body of a successful ``POST /predict``: raw units, times in the request's form.

    ``time_format`` is the form, if it is that of the data set's files and not plain ISO 8601 or epoch seconds.

    Parameters
    ----------
    answer : Answer
    style : WritesTimes
        Form of the times.
    levels : sequence of probabilities
        The quantiles that each prediction has, checked by `check_levels`; without them the answer has no ``quantiles``.
    history_until : int, optional
        Time of the last stored row, epoch seconds, if stored rows were used.
    now : float
        Epoch seconds; a forecast from stored rows that ends before it has a ``warning``.
    """
    return _encode(
        {
            **answer.champion.answer_head,
            "imputed_cells": answer.imputed_cells,
            **({"time_format": style.to_dict()} if isinstance(style, TimeFormat) else {}),
            **({"held_targets": [held.name for held in answer.held]} if answer.held else {}),
            **(_of_history(answer, style, history_until, now) if history_until is not None else {}),
            **({"quantiles": levels} if levels else {}),
            "predictions": predictions(answer, style, levels),
        }
    )


def _of_history(answer: Answer, style: WritesTimes, history_until: int, now: float) -> dict[str, Any]:
    """Return the fields of a forecast from stored rows."""
    until, end = style.write(np.array([history_until, answer.times[-1]]))
    if answer.times[-1] >= now:
        return {"history_until": until}
    warning = f"the forecast ends at {end}, which is in the past: the stored rows end at {until}; send newer rows"
    return {"history_until": until, "warning": warning}


def predictions(answer: Answer, style: WritesTimes, levels: Sequence[float] = ()) -> list[dict[str, Any]]:
    """Return one row per step: ``ts`` and, per target, forecast, bounds and quantiles; a NaN becomes null in JSON."""
    keys: Sequence[str] = answer.champion.answer_keys
    numbers = answer.with_bounds()
    if levels:
        keys = [*keys, *(key for name in answer.champion.targets for key in quantile_keys(name, levels))]
        further = quantile_values(answer, levels)
        numbers = np.concatenate([_flat(numbers), _flat(further)], axis=1)
    rows: list[list[float]] = _flat(numbers).tolist()
    times = style.write(answer.times)
    return [{"ts": when, **dict(zip(keys, row, strict=True))} for when, row in zip(times, rows, strict=True)]


def _flat(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return numbers (h, ...) as one row per step."""
    return numbers.reshape(len(numbers), -1)
