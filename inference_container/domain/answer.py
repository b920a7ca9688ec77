"""The JSON body of an answer to ``POST /predict``."""

from __future__ import annotations

from typing import Any

import msgspec

from flts.times import TimeFormat
from inference_container.domain.batching import Answer
from inference_container.domain.request import WritesTimes

_encode = msgspec.json.Encoder().encode


def answer_body(answer: Answer, style: WritesTimes) -> bytes:
    """Return the body of a successful ``POST /predict``: raw units, times in the request's form.

    ``time_format`` is the form, if it is that of the data set's files and not plain ISO 8601 or epoch seconds.
    """
    return _encode(
        {
            **answer.champion.answer_head,
            "imputed_cells": answer.imputed_cells,
            **({"time_format": style.to_dict()} if isinstance(style, TimeFormat) else {}),
            **({"held_targets": [held.name for held in answer.held]} if answer.held else {}),
            "predictions": predictions(answer, style),
        }
    )


def predictions(answer: Answer, style: WritesTimes) -> list[dict[str, Any]]:
    """Return one row per step: ``ts`` and, per target, forecast and bounds; a NaN becomes null in JSON."""
    keys = answer.champion.answer_keys
    rows: list[list[float]] = answer.with_bounds().reshape(len(answer.mean), -1).tolist()
    times = style.write(answer.times)
    return [{"ts": when, **dict(zip(keys, row, strict=True))} for when, row in zip(times, rows, strict=True)]
