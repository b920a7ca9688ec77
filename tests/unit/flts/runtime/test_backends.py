from __future__ import annotations

import threading

import pytest

from flts.errors import BackendAwayError
from flts.runtime import backends
from flts.settings import KafkaSettings


def test_the_last_look_at_a_broker_still_has_time_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def away(*_: object, timeout_seconds: float) -> None:
        given.append(timeout_seconds)
        msg = "no answer"
        raise BackendAwayError(msg)

    monkeypatch.setattr(backends, "check_broker", away)
    monkeypatch.setattr(backends, "check_seconds", lambda _: 0.7)

    with pytest.raises(BackendAwayError, match=r"'metadata request' did not succeed within 0\.7 s: no answer"):
        backends._check_kafka(KafkaSettings(kafka_bootstrap_servers="127.0.0.1:1"), "tests", (), threading.Event())

    assert given == [backends.LEAST_SECONDS] * len(given)
    assert given
