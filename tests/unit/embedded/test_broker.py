"""The embedded broker has dead-letter topics for the running groups only."""

from __future__ import annotations

import pytest

from embedded.broker import BrokerSettings
from flts.trainers import DEPLOYMENTS, TRAINERS
from tests.trainers import INSTALLED


def groups_of(settings: BrokerSettings) -> set[str]:
    names = settings.topic_names([])
    return {name.removesuffix(".dead-letter").removeprefix("a-") for name in names if name.endswith(".dead-letter")}


def test_each_trainer_that_runs_has_dead_letters_under_its_own_group() -> None:
    assert groups_of(BrokerSettings(namespace_prefix="a-")) == {"preprocess", "eval", "inference-worker", *INSTALLED}


def test_a_trainer_that_is_asked_for_has_them_too_and_one_that_is_not_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for trainer in (each for each in TRAINERS if not each.baselines):
        monkeypatch.setenv("EXPECTED_MODEL_TYPES", trainer.model_type)
        assert groups_of(BrokerSettings.load()) & set(DEPLOYMENTS) == {trainer.deployment, "nonml-baseline"}
