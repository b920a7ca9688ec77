"""Put load on a running FLTS: ``python -m tools.load --target embedded|compose|helm --users 20 --duration 2m``.

It starts Locust's master and workers on this machine, without the web page. It exits with 1 if the run misses a
threshold of ``locust/thresholds.py``, or of ``tools/scaling.py`` with ``--scale-to``. Everything ends after the given
time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from embedded.ports import free_port
from tools.release import Release, ReleaseError
from tools.scaling import ScalingWatch, reasons_to_fail

ROOT = Path(__file__).resolve().parent.parent
FEWEST_USERS = 3
"""One user for each kind of request: forecasts, uploads, lists."""
OWN = "load-"
SAMPLE = "sample"
STOP_SECONDS = 90
"""Seconds that a user has at the end to wait for its run's decision."""
WORKERS_SECONDS = 180
"""Seconds that the workers have to start, on a busy machine."""
SPARE_SECONDS = WORKERS_SECONDS + 30
DECIDED_SECONDS = 300.0
UNITS = {"s": 1, "m": 60, "h": 3600}


class LoadError(Exception):
    """The load test cannot begin; the message states the remedy."""


@dataclass(frozen=True)
class Target:
    """The addresses and the key of the pipeline under load."""

    gateway: str
    inference: str
    api_key: str


def main() -> int:
    """Find the target, make sure that it serves a champion, and run Locust."""
    options = parse()
    try:
        target = find(options)
        check(options, target)
        prepare(target)
        report = options.report or ROOT / ".reports" / f"load-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        return run(options, target, report) if options.scale_to is None else run_scaled(options, target, report)
    except (LoadError, ReleaseError, httpx.HTTPError) as error:
        sys.stderr.write(f"no load: {error}\n")
        return 2


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="python -m tools.load", description=__doc__)
    parser.add_argument("--target", choices=("embedded", "compose", "helm"), default="embedded")
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--duration", type=seconds, default=120, help="120, 120s, 2m")
    parser.add_argument("--shape", default="steady")
    parser.add_argument("--workers", type=int, default=2, help="processes that make the load")
    parser.add_argument("--home", type=Path, default=Path(".flts"), help="FLTS_HOME of the embedded pipeline")
    parser.add_argument("--env-file", type=Path, default=ROOT / ".env", help="Compose's .env")
    parser.add_argument("--namespace", default="default", help="where the chart is installed")
    parser.add_argument("--scale-to", type=int, metavar="REPLICAS", help="fail unless the cluster's events show it")
    parser.add_argument("--report", type=Path, help="folder of the report")
    parser.add_argument("--max-p95-ms", type=float)
    parser.add_argument("--max-median-ms", type=float)
    parser.add_argument("--upload-seconds", type=float)
    return parser.parse_args()


def seconds(text: str) -> int:
    """Return a duration in seconds."""
    found = re.fullmatch(r"(\d+)([smh]?)", text)
    if found is None:
        msg = f"{text} is no duration; write 90, 90s or 2m"
        raise argparse.ArgumentTypeError(msg)
    return int(found[1]) * UNITS[found[2] or "s"]


def find(options: argparse.Namespace) -> Target:
    """Return the target that the options name."""
    if options.target == "embedded":
        return embedded(options.home)
    if options.target == "compose":
        return compose(options.env_file)
    return helm(Release(options.namespace))


def embedded(home: Path) -> Target:
    """Return the target of the embedded pipeline that runs on a folder."""
    state, key = home / "embedded.json", home / "api-key"
    if not state.exists():
        msg = f"no embedded pipeline runs on {home}: start one with `make embedded`, or name its FLTS_HOME"
        raise LoadError(msg)
    found = json.loads(state.read_text())
    return Target(found["gateway_url"], found["inference_url"], key.read_text().strip())


def compose(env_file: Path) -> Target:
    """Return the target of the ports that Compose publishes for the gateway and the balancer of inference."""
    if not env_file.exists():
        msg = f"no {env_file.name}: `make env && docker compose up` first"
        raise LoadError(msg)
    lines = (line.strip() for line in env_file.read_text().splitlines())
    values = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    gateway, inference = values.get("GATEWAY_PORT") or "8000", values.get("INFERENCE_PORT") or "30080"
    return Target(f"http://127.0.0.1:{gateway}", f"http://127.0.0.1:{inference}", values["GATEWAY_API_KEY"])


def helm(release: Release) -> Target:
    """Return the target of the node's ports for the gateway and inference of an installed chart."""
    return Target(release.url("fastapi-app"), release.url("inference"), release.secret("GATEWAY_API_KEY"))


def check(options: argparse.Namespace, target: Target) -> None:
    """Refuse wrong options, and targets on other machines, before a request is sent."""
    if options.scale_to is not None and options.target != "helm":
        msg = f"--scale-to: nothing scales by itself on {options.target}"
        raise LoadError(msg)
    if options.users < FEWEST_USERS:
        msg = f"USERS={options.users}: at least {FEWEST_USERS}, one for forecasts, one for uploads, one for lists"
        raise LoadError(msg)
    for address in (target.gateway, target.inference):
        if urlsplit(address).hostname not in {"127.0.0.1", "localhost"}:
            msg = f"{address} is another machine: load is for this one"
            raise LoadError(msg)


def prepare(target: Target) -> None:
    """Upload the generated sample and wait for its champion, unless a data set is served already."""
    with httpx.Client(timeout=30) as client:
        if served(client, target):
            return
        from flts.ingest.sample import write_sample  # noqa: PLC0415 - slow imports that only this case needs

        print(f"nothing is served yet: uploading the shipped sample as {SAMPLE}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            train, test = write_sample(Path(folder))
            files = {"train": train.read_bytes(), "test": test.read_bytes()}
        headers = {"x-api-key": target.api_key}
        sent = client.post(f"{target.gateway}/datasets/{SAMPLE}", files=files, headers=headers)
        if sent.is_error:
            msg = f"the sample was refused: {sent.text}"
            raise LoadError(msg)
        deadline = time.monotonic() + DECIDED_SECONDS
        while not served(client, target):
            if time.monotonic() > deadline:
                msg = f"the sample is not served after {DECIDED_SECONDS:g} s: flts runs"
                raise LoadError(msg)
            time.sleep(1)


def served(client: httpx.Client, target: Target) -> bool:
    """Return whether a champion is loaded whose data set is not of a load test."""
    models = client.get(f"{target.inference}/models").raise_for_status().json()["models"]
    return any(model["loaded"] and not model["identifier"].startswith(OWN) for model in models)


def run_scaled(options: argparse.Namespace, target: Target, report: Path) -> int:
    """Run Locust; fail also if the cluster's events do not show that the autoscaler added replicas."""
    with ScalingWatch(Release(options.namespace)) as watch:
        code = run(options, target, report)
    reasons = reasons_to_fail(watch.evidence, options.scale_to)
    (report / "scaling.json").write_text(json.dumps({"reasons": reasons, **watch.evidence.as_dict()}, indent=2))
    for rescale in watch.evidence.rescales:
        print(f"{rescale.time} {rescale.message}")
    for reason in reasons:
        sys.stderr.write(f"load failed: {reason}\n")
    return code or (1 if reasons else 0)


def run(options: argparse.Namespace, target: Target, report: Path) -> int:
    """Run Locust's processes to their end; return the master's exit code."""
    report.mkdir(parents=True, exist_ok=True)
    port = free_port()
    shared = [
        *(sys.executable, "-m", "locust", "--locustfile", str(ROOT / "locust" / "locustfile.py")),
        *("--gateway", target.gateway, "--inference", target.inference, "--loglevel", "INFO"),
        *("--stop-timeout", str(STOP_SECONDS), "--shape", options.shape),
    ]
    for name in ("max_p95_ms", "max_median_ms", "upload_seconds"):
        if getattr(options, name) is not None:
            shared += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    master = [
        *(*shared, "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", str(port)),
        *("--headless", "--only-summary", "--expect-workers", str(options.workers)),
        *("--expect-workers-max-wait", str(WORKERS_SECONDS)),
        *("--users", str(options.users), "--spawn-rate", str(options.users), "--run-time", f"{options.duration}s"),
        *("--csv", str(report / "load"), "--report", str(report)),
    ]
    worker = [*shared, "--worker", "--master-host", "127.0.0.1", "--master-port", str(port)]
    # The API key is passed in the environment and not as an argument, because every user of the machine can read
    # command lines.
    environment = {"GATEWAY_API_KEY": target.api_key}
    with (report / "workers.log").open("w") as log, contextlib.ExitStack() as processes:
        first = processes.enter_context(started(master, environment))
        for _ in range(options.workers):
            processes.enter_context(started(worker, environment, log=log))
        try:
            code = first.wait(timeout=options.duration + STOP_SECONDS + SPARE_SECONDS)
        except subprocess.TimeoutExpired:
            sys.stderr.write("load failed: Locust did not end in time\n")
            code = 1
    return code or show(report)


def show(report: Path) -> int:
    """Return 0 if the report's summary states that the run passed, 1 if not or if there is no summary."""
    summary = report / "summary.json"
    if not summary.exists():
        sys.stderr.write("load failed: no summary was written\n")
        return 1
    return 0 if json.loads(summary.read_text())["passed"] else 1


@contextlib.contextmanager
def started(
    command: list[str], variables: Mapping[str, str], *, log: object = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process, and end it in any case."""
    process = subprocess.Popen(command, env={**environ(), **variables}, stdout=log, stderr=log, cwd=ROOT)  # type: ignore[call-overload] # `log` is a file or None
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def environ() -> dict[str, str]:
    """Return this process's variables, without which Locust does not start."""
    import os  # noqa: PLC0415 - only this function needs it

    return dict(os.environ)  # noqa: TID251 - passed on to Locust


if __name__ == "__main__":
    raise SystemExit(main())
