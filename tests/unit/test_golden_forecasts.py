"""Each model type makes the forecasts of the golden file; `tests.golden_forecasts` says how it is written again."""

from __future__ import annotations

import json

import pytest

from flts.trainers import NETWORKS, TRAINERS
from tests.golden_forecasts import GOLDEN, SERIES, numbers

WRITTEN = json.loads(GOLDEN.read_text(encoding="utf-8"))
CLOSED_FORM = {"rel": 1e-4}
"""Room for the rounding of another BLAS."""
NETWORK = {"rel": 0.05}
"""Sums in another order change the path of the optimiser."""


def test_the_golden_file_has_every_model_type_of_the_registry() -> None:
    registered = [name for trainer in TRAINERS for name in trainer.model_types]

    assert {name: list(found) for name, found in WRITTEN.items()} == dict.fromkeys(SERIES, registered)


@pytest.mark.parametrize("series", SERIES)
def test_every_model_type_makes_the_golden_forecasts(series: str) -> None:
    made = numbers(series)

    for model_type, golden in WRITTEN[series].items():
        room = NETWORK if model_type in NETWORKS else CLOSED_FORM
        assert made[model_type].keys() == golden.keys(), model_type
        for figure, value in golden.items():
            wanted = value if value is None or isinstance(value, str) else pytest.approx(value, **room)
            assert made[model_type][figure] == wanted, f"{model_type}: {figure}"
