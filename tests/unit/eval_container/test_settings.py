from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from eval_container.settings import EvalSettings
from flts.trainers import DEFAULT_MODEL_TYPES


def _settings(folder: Path, **values: Any) -> EvalSettings:
    return EvalSettings(
        kafka_bootstrap_servers="k:1", mlflow_tracking_uri="http://m", store="filesystem", store_path=folder, **values
    )


def test_the_defaults_are_the_designs(tmp_path: Path) -> None:
    settings = _settings(tmp_path)

    assert settings.expected_model_types == DEFAULT_MODEL_TYPES
    assert (settings.eval_silence_seconds, settings.eval_max_seconds) == (300, 7200)
    assert settings.weights() == (0.5, 0.3, 0.2)
    assert (settings.gate_min_skill, settings.gate_against_champion) == (0.02, True)
    assert (settings.retain_runs, settings.retain_log_days) == (20, 30)


def test_all_steps_of_the_horizon_are_scored_unless_some_are_named(tmp_path: Path) -> None:
    assert _settings(tmp_path).scored_steps(3) == (1, 2, 3)
    assert _settings(tmp_path, score_horizons="5,1").scored_steps(3) == (1, 5)


def test_lists_are_read_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPECTED_MODEL_TYPES", "gru, LSTM,gru")
    monkeypatch.setenv("SCORE_WEIGHTS", "1,0,0")

    settings = _settings(tmp_path)

    assert settings.expected_model_types == ("GRU", "LSTM")
    assert settings.weights() == (1, 0, 0)


@pytest.mark.parametrize(
    "values",
    [
        {"score_weights": "0.5,0.5"},
        {"score_weights": "a,b,c"},
        {"score_weights": "0,0,0"},
        {"score_weights": "nan,1,1"},
        {"score_horizons": "0"},
        {"expected_model_types": ","},
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, values: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        _settings(tmp_path, **values)
