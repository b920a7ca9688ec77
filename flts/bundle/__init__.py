"""A bundle is ``model.onnx`` and ``bundle.json``: the only contract between trainers and those who forecast."""
