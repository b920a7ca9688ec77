"""The numbers of every model type on three small series: ``python -m tests.golden_forecasts`` writes the golden file.

Write it again after a change that is meant to change a model, and review the difference.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from flts.bundle.forecaster import Forecaster
from flts.bundle.load import fetch_bundle
from flts.bundle.model import BundleModel
from flts.contracts.events import Scalar
from flts.trainers import TRAINERS
from tests.bench_forecast.sets import csv_of
from tests.in_process import decided_upload

GOLDEN = Path(__file__).parent / "unit" / "golden" / "forecasts.json"
STEPS = 6
SETTINGS: dict[str, Scalar] = {
    "HORIZON": str(STEPS),
    "EPOCHS": 20,
    "BATCH_SIZE": 64,
    "HIDDEN_SIZE": 16,
    "NUM_LAYERS": 1,
}
"""Small networks, so that the test is fast: the file shows that a fit changed, and not how good it is."""
SERIES = {"monthly": ("M", 120, 12), "daily": ("D", 400, 7), "hourly": ("h", 600, 24)}
"""Unit of the step, rows and season."""

Numbers = dict[str, Any]


def made_csv(name: str) -> bytes:
    """Return a series with a season that grows with its level, a trend and correlated noise."""
    unit, rows, season = SERIES[name]
    at = np.arange(rows)
    noise = np.convolve(np.random.default_rng(rows).normal(0, 1, rows + 2), [0.5, 0.3, 0.2], mode="valid")
    level = 50 + 20 * at / rows
    values = level * (1 + 0.2 * np.sin(2 * np.pi * at / season)) + 2 * noise
    times = np.datetime64("2020-01", unit) + at
    return csv_of(times.astype("datetime64[s]"), {"value": values})


def numbers(name: str) -> dict[str, Numbers]:
    """Return the numbers of every model type of the registry on a series.

    A model has its forecast of the steps after the last row, its bounds and its score on the test rows. A model type
    that the trainers refuse for these rows has their reason in place of the numbers.
    """
    with patch("flts.bundle.proof.prove"), tempfile.TemporaryDirectory() as folder:
        decided = decided_upload(Path(folder), made_csv(name), trainers=TRAINERS, **SETTINGS)
        board = decided.judgement.scoreboard
        scores = {row["model_type"]: row.get("score") for row in (*board["candidates"], *board["references"])}
        found: dict[str, Numbers] = {}
        for model_type in (name for trainer in TRAINERS for name in trainer.model_types):
            event = decided.trained.get(model_type)
            if event is None or event.bundle is None:
                found[model_type] = {"refused": None if event is None else event.error}
                continue
            forecaster = Forecaster(BundleModel(*fetch_bundle(decided.prepared.store, event.bundle)))
            forecast = forecaster.forecast(decided.prepared.raw_test, STEPS)
            bounds = {"lower": forecast.lower, "upper": forecast.upper}
            found[model_type] = {
                "forecast": _rounded(forecast.mean),
                **{bound: None if values is None else _rounded(values) for bound, values in bounds.items()},
                "score": None if scores.get(model_type) is None else float(f"{scores[model_type]:.9g}"),
            }
        return found


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.9g}") for value in values[:, 0]]


def _text(every: dict[str, dict[str, Numbers]]) -> str:
    """Return JSON with a line for each model type, so that a difference shows which of them changed."""
    series = [
        f'"{name}": {{\n' + ",\n".join(f'"{kind}": {json.dumps(found)}' for kind, found in kinds.items()) + "\n}"
        for name, kinds in every.items()
    ]
    return "{\n" + ",\n".join(series) + "\n}\n"


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(_text({name: numbers(name) for name in SERIES}), encoding="utf-8")
