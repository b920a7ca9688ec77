"""The pipeline on Kubernetes, installed by the chart, for the tests of `tests/e2e`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flts.settings import StoreSettings
from tests.cluster import HOST, RELEASE, Document, Release, free_node_ports, memory_of, release
from tests.helm import SPECS
from tests.node_kills import Killer, evict, killer
from tests.pipeline import Pipeline

REPLICAS = 2
"""Replicas of inference, without the autoscaler, which `tests/deployment/test_helm_scaling.py` tests."""
RESERVED_CPU = "10m"
DOOR = "flts-test"
"""Prefix of the tests' own Services."""
KAFKA_PORT = 19092
"""Port of a second listener of the broker, which advertises an address outside of the cluster to the tests."""


class HelmPipeline(Pipeline):
    """A running installation that only the tests use."""

    backends = ("kafka", "minio", "postgres", "mlflow")
    replicas = REPLICAS
    deaths = ("kill", "eviction")
    balanced = False

    def __init__(self, made: Release, killing: Killer | None = None, kafka: int = 0) -> None:
        """Read the addresses of a running installation; `killing` is needed for kills, and `kafka` to read messages."""
        self.made = made
        self._killing = killing
        gateway, inference = made.url("gateway"), made.url("inference")
        doors = {
            service["metadata"]["name"].removeprefix(f"{DOOR}-"): service["spec"]["ports"][0]["nodePort"]
            for service in made.get("services", "--selector", f"app={DOOR}")
        }
        health = {name: f"http://{HOST}:{port}" for name, port in doors.items() if name != "kafka"}
        self.state: dict[str, Any] = {
            "gateway_url": gateway,
            "inference_url": inference,
            "mlflow_url": made.url("mlflow"),
            "kafka": f"{HOST}:{kafka}",
            "health": health | {"fastapi-app": gateway, "inference": inference},
        }
        self._api_key = made.secret("GATEWAY_API_KEY")
        self._store = StoreSettings(
            store="s3",
            mlflow_s3_endpoint_url=made.url("minio"),
            aws_access_key_id=made.secret("AWS_ACCESS_KEY_ID"),
            aws_secret_access_key=made.secret("AWS_SECRET_ACCESS_KEY"),
        )

    @property
    def api_key(self) -> str:
        return self._api_key

    @property
    def store_settings(self) -> StoreSettings:
        return self._store

    def log(self, program: str) -> str:
        """Return the logs of a program's containers; the log of an evicted pod is lost."""
        texts = []
        for pod in self.made.pods(program):
            name = pod["metadata"]["name"]
            [status] = pod["status"]["containerStatuses"]
            if status["restartCount"]:
                texts.append(self.made.kubectl("logs", name, "--previous", check=False))
            texts.append(self.made.kubectl("logs", name))
        return "".join(texts)

    def memory(self) -> list[dict[str, Any]]:
        return memory_of(self.made)

    def kill(self, program: str) -> None:
        """Kill process 1 of a program's container with SIGKILL; the kubelet restarts the container in its pod."""
        assert self._killing is not None
        self._killing.kill(self._victim(program))

    def evict(self, program: str) -> None:
        """Evict a pod of a program; a new pod replaces it."""
        evict(self._victim(program))

    def _victim(self, program: str) -> Document:
        pods = [pod for pod in self.made.pods(program) if _is_ready(pod)]
        assert pods, f"no pod of {program} is ready"
        return pods[0]


@contextmanager
def running_helm(folder: Path, **settings: str) -> Iterator[HelmPipeline]:
    """Install the chart in a new namespace, with the tests' Services, and remove all of it afterwards.

    Parameters
    ----------
    settings : str
        Settings of every service, as in the values' ``config``.
    """
    with release("flts-e2e", folder, values(settings)) as made, killer(f"{made.name}-node") as killing:
        [kafka] = free_node_ports(1)
        made.values["kafka"]["env"] = listener(f"{HOST}:{kafka}")
        made.apply(*doors(kafka))
        made.install()
        yield HelmPipeline(made, killing, kafka)


def values(settings: Mapping[str, str], specs: Mapping[str, Document] = SPECS) -> dict[str, Any]:
    """Return the values of an installation without a first run and with a fixed number of replicas.

    Parameters
    ----------
    settings : dict
        Settings of every service, as in the values' ``config``.
    specs : dict
        The chart's workloads.
    """
    found: dict[str, Any] = {"datasetName": "", "config": dict(settings), **light(specs)}
    found["services"]["inference"] |= {"replicas": REPLICAS, "autoscaling": {"enabled": False}}
    return found


def light(specs: Mapping[str, Document] = SPECS) -> dict[str, Any]:
    """Return values with small CPU requests, because another installation may have reserved most of the node."""
    found: dict[str, Any] = {"services": {}}
    for spec in specs.values():
        part = found["services"] if spec.get("part") else found
        part[spec["values"]] = {"resources": {"requests": {"cpu": RESERVED_CPU}}}
    return found


def listener(address: str) -> dict[str, str]:
    """Return the broker's variables with an additional listener for clients outside of the cluster."""
    added = {
        "KAFKA_LISTENERS": f"TESTS://:{KAFKA_PORT}",
        "KAFKA_ADVERTISED_LISTENERS": f"TESTS://{address}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "TESTS:PLAINTEXT",
    }
    return {name: f"{SPECS['kafka']['env'][name]},{value}" for name, value in added.items()}


def doors(kafka: int) -> list[Document]:
    """Return NodePort Services for workloads without a node port in the chart, and a policy that admits the tests.

    In contrast to forwarded ports, node ports work across restarts of pods and of the API server.
    """
    ports = {
        name: spec["ports"]["http"] for name, spec in SPECS.items() if spec.get("metrics") and not spec.get("nodePorts")
    }
    return [
        *(_door(name, {"port": port, "targetPort": "http"}) for name, port in ports.items()),
        _door("kafka", {"port": KAFKA_PORT, "targetPort": KAFKA_PORT, "nodePort": kafka}),
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": DOOR},
            "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": "http"}, {"port": KAFKA_PORT}]}]},
        },
    ]


def _door(name: str, port: Document) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"{DOOR}-{name}", "labels": {"app": DOOR}},
        "spec": {
            "type": "NodePort",
            # Pods that are not ready must be reachable too: their /readyz states the reason.
            "publishNotReadyAddresses": True,
            "ports": [port],
            "selector": {"app.kubernetes.io/instance": RELEASE, "app.kubernetes.io/component": name},
        },
    }


def _is_ready(pod: Document) -> bool:
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True"
