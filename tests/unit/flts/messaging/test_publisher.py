from __future__ import annotations

from collections.abc import Iterator

import pytest

from embedded.ports import free_port
from flts.errors import BackendAwayError
from flts.messaging import kafka
from flts.messaging.kafka import Publisher
from flts.settings import KafkaSettings
from tests.eventually import eventually


@pytest.fixture
def lonely(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """A publisher whose broker never answers."""
    monkeypatch.setattr(kafka, "DELIVERY_MS", 600)
    publisher = Publisher(KafkaSettings(kafka_bootstrap_servers=f"127.0.0.1:{free_port()}"), "tests")
    yield publisher
    publisher.close(timeout_seconds=0.1)


def test_a_producer_whose_messages_time_out_is_replaced(lonely: Publisher) -> None:
    first = lonely._producer

    with pytest.raises(BackendAwayError, match="raw-data"):
        lonely.publish_record("raw-data", b"key", b"value", [])

    eventually(lambda: lonely._producer is not first, "another producer")
    with pytest.raises(BackendAwayError, match="raw-data"):
        lonely.publish_record("raw-data", b"key", b"value", [])
