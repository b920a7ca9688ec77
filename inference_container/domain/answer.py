"""The JSON body of an answer to ``POST /predict``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from flts.times import TimeFormat
from inference_container.domain.batching import Answer
from inference_container.domain.requested_quantiles import quantile_keys, quantile_values
from inference_container.domain.times import TimeStyle, WritesTimes

REMEMBERED_LISTS, REMEMBERED_STEPS = 64, 400
"""Lists of written times that are cached, and the longest one."""
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
    times = written(style, answer.times)
    return _encode(
        {
            **answer.champion.answer_head,
            "imputed_cells": answer.imputed_cells,
            **({"time_format": style.to_dict()} if isinstance(style, TimeFormat) else {}),
            **({"held_targets": [held.name for held in answer.held]} if answer.held else {}),
            **(_of_history(answer, times[-1], style, history_until, now) if history_until is not None else {}),
            **({"quantiles": levels} if levels else {}),
            "predictions": _predictions(answer, times, levels),
        }
    )


def written(style: WritesTimes, times: NDArray[np.int64]) -> Sequence[str | int | float]:
    """Return times in a style; the latest lists are cached, since most requests continue the same stored rows."""
    if isinstance(style, TimeStyle) and len(times) <= REMEMBERED_STEPS:
        return _written(style, times.tobytes())
    return style.write(times)


@lru_cache(maxsize=REMEMBERED_LISTS)
def _written(style: TimeStyle, times: bytes) -> Sequence[str | int | float]:
    return style.write(np.frombuffer(times, dtype=np.int64))


def _of_history(answer: Answer, end: str | float, style: WritesTimes, history_until: int, now: float) -> dict[str, Any]:
    """Return the fields of a forecast from stored rows; ``end`` is the time of its last step."""
    [until] = written(style, np.array([history_until]))
    if answer.times[-1] >= now:
        return {"history_until": until}
    warning = f"the forecast ends at {end}, which is in the past: the stored rows end at {until}; send newer rows"
    return {"history_until": until, "warning": warning}


def _predictions(answer: Answer, times: Sequence[str | int | float], levels: Sequence[float]) -> list[Any]:
    """Return one row per step: ``ts`` and, per target, forecast, bounds and quantiles; a NaN becomes null in JSON."""
    champion, numbers = answer.champion, _flat(answer.with_bounds())
    if levels:
        # The keys depend on the request. A struct for them would take longer to make than these dicts.
        further = [key for name in champion.targets for key in quantile_keys(name, levels)]
        keys = ("ts", *champion.answer_keys, *further)
        numbers = np.concatenate([numbers, _flat(quantile_values(answer, levels))], axis=1)
        return [dict(zip(keys, (when, *row), strict=True)) for when, row in zip(times, numbers.tolist(), strict=True)]
    row_of = champion.answer_row
    return [row_of(when, *row) for when, row in zip(times, numbers.tolist(), strict=True)]


def _flat(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return numbers (h, ...) as one row per step."""
    return numbers.reshape(len(numbers), -1)
