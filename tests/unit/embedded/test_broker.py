"""The embedded broker has the dead letters of the groups there are, and of no other."""

from __future__ import annotations

from embedded.broker import BrokerSettings
from flts.trainers import DEPLOYMENTS


def test_each_trainer_has_dead_letters_under_its_own_group() -> None:
    settings = BrokerSettings(namespace_prefix="a-")

    names = settings.topic_names([])

    groups = {name.removesuffix(".dead-letter").removeprefix("a-") for name in names if name.endswith(".dead-letter")}
    assert groups == {"preprocess", "eval", "inference-worker", *DEPLOYMENTS}
