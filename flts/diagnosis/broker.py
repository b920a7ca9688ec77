"""The steps that diagnose the Kafka broker."""

from __future__ import annotations

from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from flts.contracts import topics
from flts.diagnosis.network import Address, network_steps
from flts.diagnosis.steps import Backend, Step
from flts.errors import BackendAwayError
from flts.messaging.kafka import common_config, full_name
from flts.settings import KafkaSettings

ANSWER_SECONDS = 3.5
SETTING = "KAFKA_BOOTSTRAP_SERVERS"


def broker(settings: KafkaSettings, *, start: str) -> Backend:
    """Return the broker's steps: name, TCP, request, the addresses that it advertises to clients, topics."""
    look = _Look(settings)
    addresses = [_address(server) for server in settings.kafka_bootstrap_servers.split(",") if server.strip()]
    steps = [
        *network_steps(addresses, setting=SETTING, start=start),
        Step(
            "request",
            look.ask,
            lambda _: (
                f"what listens at {settings.kafka_bootstrap_servers} is no Kafka broker of this protocol: "
                f"point {SETTING} at the listener for clients"
            ),
        ),
        Step(
            "host check",
            look.reach_advertised,
            lambda _: "set the broker's advertised.listeners to an address that this machine reaches",
        ),
        Step(
            "topics",
            look.find_topics,
            lambda _: "start any FLTS service: each creates the topics that are missing (NAMESPACE_PREFIX must match)",
        ),
    ]
    return Backend("kafka", settings.kafka_bootstrap_servers, steps)


class _Look:
    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._metadata: Any = None

    def ask(self) -> str:
        try:
            self._metadata = AdminClient(common_config(self._settings, "flts-doctor")).list_topics(
                timeout=ANSWER_SECONDS
            )
        except KafkaException as error:
            raise BackendAwayError(error.args[0].str()) from error
        return f"{len(self._metadata.brokers)} broker(s), {len(self._metadata.topics)} topics"

    def reach_advertised(self) -> str:
        brokers = [(one.host, one.port) for one in self._metadata.brokers.values()]
        for step in network_steps(brokers, setting=SETTING, start=""):
            try:
                step.act()
            except OSError as error:
                named = ", ".join(f"{host}:{port}" for host, port in brokers)
                msg = f"the broker tells its clients to come to {named}: {error}"
                raise BackendAwayError(msg) from error
        return f"clients are sent to {', '.join(f'{host}:{port}' for host, port in brokers)}"

    def find_topics(self) -> str:
        wanted = [full_name(self._settings, topic.name) for topic in topics.ALL]
        missing = [name for name in wanted if name not in self._metadata.topics]
        if missing:
            msg = f"missing: {', '.join(missing)}"
            raise BackendAwayError(msg)
        leaderless = [
            name for name in wanted if any(part.leader < 0 for part in self._metadata.topics[name].partitions.values())
        ]
        if leaderless:
            msg = f"without a leader: {', '.join(leaderless)}"
            raise BackendAwayError(msg)
        return f"all {len(wanted)} topics of the pipeline"


def _address(server: str) -> Address:
    host, _, port = server.strip().rpartition(":")
    return (host or server.strip()), int(port) if host else 9092
