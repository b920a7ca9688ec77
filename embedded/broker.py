"""A Kafka broker in one process, in memory: ``python -m embedded.broker --port P``.

librdkafka, which every service uses as its client, contains a mock cluster for its own tests. It implements the real
protocol, group protocols and idempotent producers included. It stores nothing: topics and offsets are lost when this
process ends, so the launcher has the gateway publish unfinished runs again. It keeps the latest 5 MiB of a partition,
which is one reason why messages carry claim checks instead of rows.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import importlib.util
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from flts.contracts import topics
from flts.settings import CommaSeparated, Settings, split_commas
from flts.trainers import DEFAULT_MODEL_TYPES, known_model_types, trainers_for

RD_KAFKA_PRODUCER = 0
CHUNK_BYTES = 1 << 16
NUDGE_SECONDS = 0.005


class BrokerSettings(Settings):
    """Settings of the embedded broker: its topics and their partitions."""

    namespace_prefix: str = ""
    """Prefix of the topics' names."""
    topic_partitions: int = 6
    """Partitions of each topic."""
    expected_model_types: CommaSeparated = DEFAULT_MODEL_TYPES
    """Model types whose trainers run. A trainer that does not run gets no dead-letter topic: the gateway counts the
    messages of every group that has one, and its messages would stay in flight."""

    _split = split_commas("expected_model_types")

    def topic_names(self, groups: list[str]) -> list[str]:
        """Return the names of all topics, with the dead-letter topics of the running services and of these groups."""
        trainers = [trainer.deployment for trainer in trainers_for(known_model_types(self.expected_model_types))]
        running = ["preprocess", *trainers, "eval", "inference-worker"]
        names = [topic.name for topic in topics.ALL]
        names += [topics.dead_letter_topic(group) for group in dict.fromkeys([*running, *groups])]
        return [f"{self.namespace_prefix}{name}" for name in names]


class MockCluster:
    """librdkafka's mock cluster with one broker, which advertises a given address.

    Parameters
    ----------
    host, port
        The address that the broker advertises to its clients.
    """

    def __init__(self, host: str, port: int) -> None:
        library = _library()
        error = ctypes.create_string_buffer(512)
        self._library = library
        config = ctypes.c_void_p(library.rd_kafka_conf_new())
        # librdkafka's mock broker needs a client to run in. This client connects to no broker and would log warnings
        # about that, so it logs errors only (level 3).
        library.rd_kafka_conf_set(config, b"log_level", b"3", error, len(error))
        self._client = library.rd_kafka_new(RD_KAFKA_PRODUCER, config, error, len(error))
        if not self._client:
            msg = f"librdkafka: {error.value.decode()}"
            raise RuntimeError(msg)
        self._cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(ctypes.c_void_p(self._client), 1))
        bootstraps: bytes = library.rd_kafka_mock_cluster_bootstraps(self._cluster)
        self.own_host, own_port = bootstraps.decode().split(",")[0].rsplit(":", 1)
        self.own_port = int(own_port)
        library.rd_kafka_mock_broker_set_host_port(self._cluster, 1, host.encode(), port)
        # The mock broker cannot create topics at a client's request. With a controller set, such a request fails at
        # once; without a controller it would end in a timeout.
        library.rd_kafka_mock_set_controller_id(self._cluster, 1)
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 200)
        library.rd_kafka_mock_set_group_consumer_session_timeout_ms(self._cluster, 6_000)
        library.rd_kafka_mock_set_group_consumer_heartbeat_interval_ms(self._cluster, 1_000)

    def create_topics(self, names: Iterable[str], partitions: int) -> None:
        """Create topics before any client connects: a topic that a client requests first gets the default partitions.

        Raises
        ------
        RuntimeError
            If the library refuses.
        """
        done = threading.Event()
        nudge = threading.Thread(target=self._nudge, args=(done,), daemon=True)
        nudge.start()
        try:
            for name in names:
                code = self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)
                if code:
                    msg = f"librdkafka did not create the topic {name}: error {code}"
                    raise RuntimeError(msg)
        finally:
            done.set()
            nudge.join()

    def _nudge(self, done: threading.Event) -> None:
        # The mock cluster's thread sometimes misses a wake-up and sleeps for a second. A new connection wakes the
        # thread, so this loop opens connections while topics are created: creating 13 topics took up to 3 s without
        # this loop, and 0.02 s with it.
        while not done.wait(NUDGE_SECONDS):
            with contextlib.suppress(OSError):
                socket.create_connection((self.own_host, self.own_port), timeout=1).close()


def main() -> int:
    """Run the broker until a signal stops it or its parent ends."""
    parser = argparse.ArgumentParser(prog="python -m embedded.broker", description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument("--advertised", default="", help="HOST:PORT that clients use, if it is that of a proxy")
    parser.add_argument("--groups", default="", help="further groups with dead letters, comma-separated")
    parser.add_argument("--topics", default="", help="further topics, comma-separated")
    arguments = parser.parse_args()
    settings = BrokerSettings.load()
    groups = [group for group in arguments.groups.split(",") if group]
    names = [*settings.topic_names(groups), *(name for name in arguments.topics.split(",") if name)]
    parent = os.getppid()
    told_host, _, told_port = (arguments.advertised or f"{arguments.host}:{arguments.port}").rpartition(":")
    cluster = MockCluster(told_host, int(told_port))
    cluster.create_topics(dict.fromkeys(names), settings.topic_partitions)
    ready = f"embedded broker ready on {arguments.host}:{arguments.port} ({len(names)} topics in memory)"
    return asyncio.run(_serve(arguments.host, arguments.port, cluster, parent, ready))


async def _serve(host: str, port: int, cluster: MockCluster, parent: int, ready: str) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            other_reader, other_writer = await asyncio.open_connection(cluster.own_host, cluster.own_port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, other_writer), _pump(other_reader, writer))

    try:
        server = await asyncio.start_server(relay, host, port)
    except OSError as error:
        sys.stderr.write(f"embedded broker: {host}:{port} cannot be listened on: {error.strerror}\n")
        return 1
    print(ready, flush=True)
    while not stop.is_set() and os.getppid() == parent:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), timeout=0.2)
    server.close()
    # os._exit ends the process without closing the connections and librdkafka's threads one by one: they end with the
    # process.
    sys.stdout.flush()
    os._exit(0)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()


def _library() -> ctypes.CDLL:
    """Load the librdkafka that the wheel of confluent-kafka contains."""
    found = importlib.util.find_spec("confluent_kafka")
    if found is None or found.origin is None:
        msg = "the embedded broker is part of confluent-kafka, which is not installed"
        raise RuntimeError(msg)
    package = Path(found.origin).parent
    places = (package.parent / "confluent_kafka.libs", package / ".dylibs")
    candidates = sorted(path for place in places for path in place.glob("librdkafka*") if place.is_dir())
    if not candidates:
        msg = f"no librdkafka beside {package}: install confluent-kafka from a wheel"
        raise RuntimeError(msg)
    library = ctypes.CDLL(str(candidates[0]))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, arguments in (
        ("rd_kafka_conf_new", pointer, []),
        ("rd_kafka_conf_set", number, [pointer, text, text, text, ctypes.c_size_t]),
        ("rd_kafka_new", pointer, [number, pointer, text, ctypes.c_size_t]),
        ("rd_kafka_mock_cluster_new", pointer, [pointer, number]),
        ("rd_kafka_mock_cluster_bootstraps", text, [pointer]),
        ("rd_kafka_mock_topic_create", number, [pointer, text, number, number]),
        ("rd_kafka_mock_broker_set_host_port", number, [pointer, ctypes.c_int32, text, number]),
        ("rd_kafka_mock_set_controller_id", number, [pointer, ctypes.c_int32]),
        ("rd_kafka_mock_group_initial_rebalance_delay_ms", None, [pointer, ctypes.c_int32]),
        ("rd_kafka_mock_set_group_consumer_session_timeout_ms", None, [pointer, number]),
        ("rd_kafka_mock_set_group_consumer_heartbeat_interval_ms", None, [pointer, number]),
    ):
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


if __name__ == "__main__":
    raise SystemExit(main())
