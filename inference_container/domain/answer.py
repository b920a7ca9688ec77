"""The JSON of an answer."""

from __future__ import annotations

from itertools import chain
from typing import Any

import msgspec
import numpy as np

from inference_container.domain.batching import Answer
from inference_container.domain.times import TimeStyle

_encode = msgspec.json.Encoder().encode


def answer_body(answer: Answer, style: TimeStyle) -> bytes:
    """Return the body of a successful ``POST /predict``: raw units, times in the request's form."""
    champion = answer.champion
    promotion = champion.promotion
    return _encode(
        {
            "status": "SUCCESS",
            "identifier": promotion.identifier,
            "run_id": promotion.run_id,
            "model_type": promotion.model_type,
            "config_hash": promotion.config_hash,
            "calibrated_steps": champion.calibrated_steps,
            "imputed_cells": answer.imputed_cells,
            "predictions": predictions(answer, style),
        }
    )


def predictions(answer: Answer, style: TimeStyle) -> list[dict[str, Any]]:
    """Return one row per step: ``ts`` and, for each target, the forecast and its bounds (null where unknown)."""
    targets = answer.champion.targets
    keys = ("ts", *chain.from_iterable((name, f"{name}_lower", f"{name}_upper") for name in targets))
    lower, upper = answer.lower, answer.upper
    rows: list[list[Any]]
    if lower is None or upper is None:
        rows = [list(chain.from_iterable((value, None, None) for value in row)) for row in answer.mean.tolist()]
    else:
        rows = np.stack([answer.mean, lower, upper], axis=2).reshape(len(answer.mean), -1).tolist()
    times = style.write(answer.times)
    return [dict(zip(keys, (when, *row), strict=True)) for when, row in zip(times, rows, strict=True)]
