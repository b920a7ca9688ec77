"""A bundle is ``model.onnx`` and ``bundle.json``: the only contract between trainers and those who forecast."""

MODEL_FILE = "model.onnx"
BUNDLE_FILE = "bundle.json"
