"""How trainers write ONNX: one opset, checked, the same bytes for the same numbers."""

from __future__ import annotations

from typing import Any

OPSET = 17
"""Old enough for any runtime of these years, new enough for all that is used."""
IR_VERSION = 8


def to_bytes(model: Any) -> bytes:
    """Return a model's bytes after ONNX's own checker has passed it.

    Parameters
    ----------
    model : onnx.ModelProto
    """
    from onnx import checker  # noqa: PLC0415 - only trainers have onnx

    checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data
