"""Bundles: ``model.onnx`` and ``bundle.json``, the only interface between trainers and the services that forecast."""

from flts.storage.layout import BUNDLE_FILE, MODEL_FILE

__all__ = ["BUNDLE_FILE", "MODEL_FILE"]
