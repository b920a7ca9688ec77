"""The content of the Compose file and the Dockerfiles: hardening, ports, variables, agreement with the code."""

from __future__ import annotations

import ast
import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import flts
from embedded.settings import EmbeddedSettings
from flts.runtime.server import HttpServer
from flts.settings import DEFAULT_CREDENTIALS, Settings
from flts.trainers import DEPLOYMENTS, TRAINERS
from tests.docker import Installation, require_compose
from tools.configuration import READERS, trainers_in
from tools.env_file import EXAMPLE, names
from tools.images import IMAGES

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: each for name, each in SERVICES.items() if "flts/" in each["image"]}
TOOLS = {"mlflow", "locust-master", "locust-worker"}  # FLTS images without a settings class
SETTINGS = {
    "fastapi-app": "gateway",
    "preprocess-job": "preprocess Job",
    **{trainer.deployment: trainers_in(trainer.package) for trainer in TRAINERS},
}
OPENED = "${PUBLISHED_ADDRESS:-127.0.0.1}"
OPENABLE = {"fastapi-app": ":8000", "kafka": ":9094", "minio": ":9000", "mlflow": ":5000"}
"""Services that another cluster may reach, with the port; all except Kafka and MLflow require a key."""
ENDPOINTS = ROOT / ".helm" / "config" / "endpoints.env"
DOCKERFILES = sorted(ROOT.glob("*_container/Dockerfile"))


def settings_of(service: str) -> type[Settings]:
    path = dict(READERS)[SETTINGS.get(service, service)]
    module, _, name = path.partition(":")
    found = getattr(importlib.import_module(module), name)
    assert issubclass(found, Settings)
    return found


def declared(settings: type[Settings]) -> set[str]:
    return {name.upper() for name in settings.model_fields}


def defaults() -> dict[str, str]:
    """Return the default of each variable that has one in the Compose file."""
    return dict(re.findall(r"\$\{([A-Z0-9_]+):-([^}]*)\}", (ROOT / "docker-compose.yaml").read_text()))


def test_every_deployment_of_the_design_is_there() -> None:
    assert {
        *("kafka", "minio", "postgres", "mlflow", "fastapi-app", "preprocess", *DEPLOYMENTS, "eval"),
        *("inference", "inference-worker", "prometheus", "grafana"),
        *("locust-master", "locust-worker"),
    } <= set(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_has_no_more_rights_and_room_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["DAC_OVERRIDE"] if name == "minio" else [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {
        "mem_limit",
        "cpus",
        "pids_limit",
        "restart",
        "logging",
        "healthcheck" if name not in OURS else "env_file",
    } <= set(service)
    assert not {"container_name", "pull_policy", "privileged", "network_mode"} & set(service)


@pytest.mark.parametrize("name", SERVICES)
def test_a_port_is_published_on_this_machine_only_and_can_be_moved(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        address = re.escape(OPENED if port.endswith(OPENABLE.get(name, "nothing")) else "127.0.0.1")
        assert re.fullmatch(address + r":\$\{[A-Z_]+_PORT:-\d+\}:\d+", port), port


def test_what_a_cluster_beside_this_machine_needs_is_opened_by_two_settings(tmp_path: Path) -> None:
    require_compose()
    made = Installation("flts-test-address", tmp_path, {})

    def published() -> tuple[dict[str, set[str]], str]:
        services = json.loads(made.compose("--profile", "*", "config", "--format", "json"))["services"]
        addresses = {name: {port["host_ip"] for port in each.get("ports", ())} for name, each in services.items()}
        return addresses, services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]

    closed, advertised = published()
    assert set().union(*closed.values()) == {"127.0.0.1"}
    assert advertised == "INTERNAL://kafka:9092,PUBLISHED://127.0.0.1:0"
    made.variables |= {"PUBLISHED_ADDRESS": "172.17.0.1", "KAFKA_ADVERTISED_HOST": "host.docker.internal"}
    opened, advertised = published()
    assert {name for name, addresses in opened.items() if "172.17.0.1" in addresses} == set(OPENABLE)
    assert set().union(*opened.values()) == {"127.0.0.1", "172.17.0.1"}
    assert advertised == "INTERNAL://kafka:9092,PUBLISHED://host.docker.internal:0"


def test_ports_are_those_of_the_embedded_mode() -> None:
    embedded = {
        name.upper(): field.default for name, field in EmbeddedSettings.model_fields.items() if name[-5:] == "_port"
    }
    published = {name: int(value) for name, value in defaults().items() if name.endswith("_PORT")}
    assert embedded.items() <= published.items()
    assert len(set(published.values())) == len(published)


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_stands_on_is_waited_for_until_it_is_healthy(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert other in SERVICES
        if other == "preprocess-job":  # with `required: false` a failed Job stops no service
            assert how == {"condition": "service_completed_successfully", "required": False}
        else:
            assert how == {"condition": "service_healthy"}


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_has_one_exact_tag(name: str) -> None:
    image = SERVICES[name]["image"]
    if name in OURS:
        assert re.fullmatch(r"flts/[a-z-]+:\$\{FLTS_VERSION:-" + re.escape(flts.__version__) + r"\}", image)
        assert image.partition(":")[0].removeprefix("flts/") in {each.name for each in IMAGES}
    else:
        tag = re.sub(r"\$\{\w+:-(.*)\}", r"\1", image).rpartition(":")[2]
        assert re.search(r"\d", tag)
        assert "@" not in image


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_compose_and_make_images_build_the_same(image: Any) -> None:
    builds = [each["build"] for each in OURS.values() if each["image"].startswith(f"flts/{image.name}:")]
    assert builds
    for build in builds:
        assert (build["context"], build["dockerfile"], build.get("target", "")) == (".", image.dockerfile, image.target)


@pytest.mark.parametrize("name", sorted(set(OURS) - TOOLS))
def test_a_settings_class_declares_every_variable(name: str) -> None:
    given = set(SERVICES[name]["environment"])
    assert given <= declared(settings_of(name))


def test_some_service_declares_every_endpoint() -> None:
    everything = set().union(*(declared(settings_of(name)) for name in set(OURS) - TOOLS))
    # GATEWAY_URL is a setting of clients such as `flts`, so no service declares it.
    assert names(ENDPOINTS.read_text()) - {"GATEWAY_URL"} <= everything


@pytest.mark.parametrize("name", sorted(OURS))
def test_endpoints_are_said_once(name: str) -> None:
    assert SERVICES[name]["env_file"][0] == ".helm/config/endpoints.env"
    assert not names(ENDPOINTS.read_text()) & set(SERVICES[name]["environment"])


def test_endpoints_name_services_and_their_ports() -> None:
    for line in ENDPOINTS.read_text().splitlines():
        if line.startswith("#"):
            continue
        host, port = re.sub(r".*=(http://)?", "", line).split(":")
        assert host in SERVICES
        assert port.isdigit()


def test_eval_waits_for_the_candidates_of_the_trainers_there_are() -> None:
    trained = {
        each["environment"]["MODEL_TYPE"]
        for each in OURS.values()
        if "MODEL_TYPE" in each.get("environment", {}) and "profiles" not in each
    }
    awaited = {name for trainer in TRAINERS if trainer.model_type in trained for name in trainer.awaited}
    assert set(defaults()["EXPECTED_MODEL_TYPES"].split(",")) == awaited


def test_every_secret_must_be_given_and_make_env_gives_it() -> None:
    text = (ROOT / "docker-compose.yaml").read_text()
    required = re.findall(r"\$\{([A-Z_]+):\?([^}]*)\}", text)
    assert {name for name, _ in required} == names(EXAMPLE.read_text())
    assert {reason for _, reason in required} == {"run `make env`"}
    assert not re.search(r"(PASSWORD|SECRET\w*|API_KEY): *[\"']?[A-Za-z0-9]", text)


def test_a_service_gets_the_secrets_it_uses_and_no_others() -> None:
    secrets = names(EXAMPLE.read_text())
    for name, service in SERVICES.items():
        given = {key for key in service.get("environment", {}) if key in secrets}
        if name in set(OURS) - TOOLS:
            assert given <= declared(settings_of(name)), name


def test_data_lies_in_named_volumes() -> None:
    for name, folder in (
        ("kafka", "/var/lib/kafka/data"),
        ("minio", "/data"),
        ("postgres", "/var/lib/postgresql/data"),
        ("prometheus", "/prometheus"),
        ("grafana", "/var/lib/grafana"),
    ):
        [volume] = [each for each in SERVICES[name]["volumes"] if each.endswith(f":{folder}")]
        assert volume.partition(":")[0] in COMPOSE["volumes"]
    assert SERVICES["kafka"]["environment"]["KAFKA_LOG_DIRS"] == "/var/lib/kafka/data"


def test_the_comment_names_the_default_s3_image() -> None:
    # The image's name is inside ${...}, where tools that search for image names miss it. So a comment repeats the name.
    assert f"S3_IMAGE={defaults()['S3_IMAGE']} " in (ROOT / "docker-compose.yaml").read_text()


@pytest.mark.parametrize(
    ("profiles", "most_gib"), [((), 6.25), (("observe",), 6.75)], ids=["by itself", "with Prometheus and Grafana"]
)
def test_limits_of_memory_fit_a_docker_desktop_of_seven_gigabytes(
    tmp_path: Path, profiles: tuple[str, ...], most_gib: float
) -> None:
    require_compose()
    made = Installation("flts-test-memory", tmp_path, {})
    chosen = [f"--profile={profile}" for profile in profiles]
    services = json.loads(made.compose(*chosen, "config", "--format", "json"))["services"]
    limits = {name: int(each["mem_limit"]) * int(each.get("scale", 1)) for name, each in services.items()}
    # Of the 7 GiB of a Docker Desktop the services may use 6.25 GiB without Prometheus and Grafana. The rest is for the
    # Docker engine and its virtual machine.
    assert sum(limits.values()) <= most_gib * 2**30, {name: limit / 2**20 for name, limit in limits.items()}


@pytest.mark.parametrize("name", sorted(set(OURS) - TOOLS - {"preprocess-job"}))
def test_more_data_can_be_given_more_memory(tmp_path: Path, name: str) -> None:
    require_compose()
    made = Installation("flts-test-memory", tmp_path, {})
    [variable] = re.findall(r"\$\{([A-Z_]+_MEMORY):-", str(SERVICES[name]["mem_limit"]))
    made.variables[variable] = "7g"
    services = json.loads(made.compose("--profile", "*", "config", "--format", "json"))["services"]
    raised = {each for each, service in services.items() if int(service["mem_limit"]) == 7 * 2**30}
    assert name in raised
    assert raised <= {name, "train-gru", "train-lstm"}


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_written_into_memory_fits_the_limit(name: str) -> None:
    """A full tmpfs counts as memory of the container and must leave half of the limit to the processes."""
    sizes = re.findall(r"size=(\d+)m", str(SERVICES[name].get("tmpfs", "")))
    limit = int(re.findall(r"(\d+)m", str(SERVICES[name]["mem_limit"]))[0])
    assert sum(map(int, sizes)) <= limit / 2


def test_kafkas_heap_leaves_room_for_what_stands_beside_it() -> None:
    [heap] = re.findall(r"-Xmx(\d+)m", SERVICES["kafka"]["environment"]["KAFKA_HEAP_OPTS"])
    assert 1.5 * int(heap) <= int(SERVICES["kafka"]["mem_limit"].removesuffix("m"))


def test_replicas_find_no_fixed_port_in_their_way() -> None:
    assert "ports" not in SERVICES["inference"]
    assert "inference:8000" in (ROOT / "deploy" / "haproxy" / "haproxy.cfg").read_text()


def test_a_service_keeps_idle_connections_longer_than_the_balancer_does() -> None:
    haproxy = (ROOT / "deploy" / "haproxy" / "haproxy.cfg").read_text()
    [kept] = re.findall(r"timeout http-keep-alive (\d+)s", haproxy)

    async def nothing(*_: Any) -> None: ...

    assert HttpServer(nothing).config.timeout_keep_alive > int(kept)


# ---- Dockerfiles


def test_every_service_has_one() -> None:
    assert [path.parent for path in DOCKERFILES] == sorted(ROOT.glob("*_container"))


def like_train(path: Path) -> list[str]:
    """Return a Dockerfile's instructions with the names and port of train, without comments and blank lines."""
    folder, text = path.parent.name, path.read_text()
    service = folder.removesuffix("_container").lower()
    text = text.replace(folder, "train_container").replace(f'".[{service}]"', '".[train]"')
    text = re.sub(r"(SERVICE_PORT=|EXPOSE )\d+", r"\g<1>8021", text)
    text = re.sub(r"(?m)^(FROM \S+:\S+) AS \w+$", r"\1", text)
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_a_dockerfile_is_its_siblings_once_the_names_are_swapped(path: Path) -> None:
    sibling = like_train(ROOT / "train_container" / "Dockerfile")
    if path.parent.name != "inference_container":
        assert like_train(path) == sibling
        return
    # The Dockerfile of inference has two targets, the server and the worker, and each sets its own SERVICE_PORT. So the
    # port is missing from the line that sets it in train_container's Dockerfile.
    own = like_train(path)
    missing = [line for line in sibling if line not in own]
    assert missing == ["    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE SERVICE_PORT=8021"]
    assert "    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE" in own
    assert own.count("ENV SERVICE_PORT=8021") == 2


def test_no_two_dockerfiles_are_of_one_size() -> None:
    """BuildKit treats files of equal size and time as the same file, and a checkout gives all files one time."""
    sizes = {path: path.stat().st_size for path in {ROOT / image.dockerfile for image in IMAGES}}
    assert len(set(sizes.values())) == len(sizes), sizes


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_an_image_is_built_like_every_other(image: Any) -> None:
    text = (ROOT / image.dockerfile).read_text()
    bases = set(re.findall(r"(?m)^FROM (\S+:\S+)", text))
    assert bases == {"python:3.11.15-slim-bookworm"}
    assert "USER 10001:10001" in text
    assert "STOPSIGNAL SIGTERM" in text
    assert re.search(r'(?m)^ENTRYPOINT \["(python|locust)"', text)
    assert "pip uninstall" in text
    # The only URLs are those of package indexes: build arguments that are empty by default.
    assert set(re.findall(r"(?m)^ARG (\w+_URL)=(.*)$", text)) <= {("PIP_INDEX_URL", '""'), ("TORCH_INDEX_URL", '""')}
    assert not re.search(r"https?://(?!127|localhost|host\.docker|mlflow)", text)


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_an_image_is_built_on_every_kind_of_processor(image: Any) -> None:
    text = (ROOT / image.dockerfile).read_text()
    assert not re.search(r"amd64|x86|arm64|aarch64|--platform|TARGETARCH", text)
    # A build downloads only Python packages, so no other download can depend on the kind of processor.
    assert not re.search(r"\b(curl|wget|apt-get|ADD)\b", text)


def test_a_pin_is_a_version_and_no_build_for_one_kind_of_machine() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", pin) for pin in pins)


@pytest.mark.parametrize("name", sorted(set(OURS) - TOOLS - {"preprocess-job"}))
def test_an_image_listens_where_its_settings_say(name: str) -> None:
    build = SERVICES[name]["build"]
    text = (ROOT / build["dockerfile"]).read_text()
    port = settings_of(name).model_fields["service_port"].default
    assert f"SERVICE_PORT={port}" in text
    assert f"EXPOSE {port}" in text
    for published in SERVICES[name].get("ports", []):
        assert published.endswith(f":{port}")


def test_mlflows_image_installs_what_is_pinned() -> None:
    pins = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {"mlflow", "boto3", "psycopg2-binary"} <= pins
    assert (
        "--constraint constraints.txt mlflow boto3 psycopg2-binary" in (ROOT / "deploy/mlflow/Dockerfile").read_text()
    )


def test_mlflow_refuses_the_passwords_that_services_refuse() -> None:
    tree = ast.parse((ROOT / "deploy" / "mlflow" / "serve.py").read_text())
    [value] = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DEFAULT_CREDENTIALS"
    ]
    assert isinstance(value, ast.Call)
    assert ast.literal_eval(value.args[0]) == DEFAULT_CREDENTIALS
