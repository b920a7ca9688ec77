"""Build every image, one after the other, and print their sizes: ``python3 -m tools.images [NAME ...]``.

It uses only the standard library. ``PIP_INDEX_URL`` and ``TORCH_INDEX_URL`` (an index of torch without CUDA, whose
libraries have 2.7 GB on x86) are passed on as build arguments if they are set. ``IMAGE_PLATFORM`` selects the platform.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARGUMENTS = ("PIP_INDEX_URL", "TORCH_INDEX_URL")
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Image:
    """One image: its name, its Dockerfile and the target in it."""

    name: str
    dockerfile: str
    target: str = ""

    @property
    def reference(self) -> str:
        """Name and tag."""
        return f"flts/{self.name}:{version()}"


IMAGES = (
    Image("gateway", "gateway_container/Dockerfile"),
    Image("preprocess", "preprocess_container/Dockerfile"),
    Image("train", "train_container/Dockerfile"),
    Image("nonml", "nonML_container/Dockerfile"),
    Image("eval", "eval_container/Dockerfile"),
    Image("inference", "inference_container/Dockerfile"),
    Image("inference-worker", "inference_container/Dockerfile", "worker"),
    Image("mlflow", "deploy/mlflow/Dockerfile"),
    Image("locust", "locust/Dockerfile"),
)


def main() -> int:
    """Build all images, or those named."""
    wanted = set(sys.argv[1:]) or {image.name for image in IMAGES}
    if unknown := wanted - {image.name for image in IMAGES}:
        sys.stderr.write(f"no such image: {', '.join(sorted(unknown))}\n")
        return 2
    rows = []
    for image in (each for each in IMAGES if each.name in wanted):
        started = time.monotonic()
        print(f"{image.reference} ...", flush=True)
        if subprocess.run(build_command(image), cwd=ROOT, env=environment(), check=False).returncode:
            sys.stderr.write(f"{image.reference} did not build; the lines above say why\n")
            return 1
        rows.append((image.reference, size_bytes(image.reference), time.monotonic() - started))
    print(f"\n{'image':<34}{'MB':>7}{'s':>7}")
    for reference, size, seconds in rows:
        print(f"{reference:<34}{size / MEGABYTE:>7.0f}{seconds:>7.0f}")
    return 0


def build_command(image: Image, reference: str = "") -> list[str]:
    """Return the command that builds an image, as `image.reference` unless another name and tag is given."""
    command = ["docker", "build", "--quiet", "--file", image.dockerfile, "--tag", reference or image.reference]
    if image.target:
        command += ["--target", image.target]
    if platform := environment().get("IMAGE_PLATFORM"):
        command += ["--platform", platform]
    given = {name: environment().get(name, "") for name in ARGUMENTS}
    for name, value in {"FLTS_COMMIT": commit(), **given}.items():
        if value:
            command += ["--build-arg", f"{name}={value}"]
    return [*command, "."]


def size_bytes(reference: str) -> int:
    """Return the size of an image's layers."""
    answer = subprocess.run(["docker", "image", "inspect", reference], capture_output=True, check=True)
    return int(json.loads(answer.stdout)[0]["Size"])


def version() -> str:
    """Return the project's version, the tag of its images."""
    found = re.search(r'(?m)^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert found is not None
    return found.group(1)


def commit() -> str:
    """Return the checked-out commit, or an empty string without git."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return answer.stdout.strip()


def environment() -> dict[str, str]:
    """Return the environment, with BuildKit switched on, because old engines do not use it by default."""
    return {"DOCKER_BUILDKIT": "1", **os.environ}  # noqa: TID251 - passed on to docker


if __name__ == "__main__":
    raise SystemExit(main())
