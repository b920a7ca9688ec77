"""Write the generated parts of the chart: ``python -m tools.chart [--check]``.

A chart reads only files in its folder, so `.helm` gets copies of the files that Compose mounts from `deploy`. The
settings that each workload reads come from the settings classes. `docs/helm-values.md` is the schema of the values as a
table.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr

from flts.settings import Settings
from flts.trainers import TRAINERS, Trainer
from tools.configuration import READERS, trainers_in
from tools.setting_values import values_of
from tools.trainers import PACKAGES, values_key

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / ".helm"
SCHEMA = CHART / "values.schema.json"
COPIED = ("s3", "prometheus", "grafana")
WORKLOADS = {
    # For a reader of settings whose name is not its workload's name in the chart: its workloads (none if the list is
    # empty).
    "gateway": ["fastapi-app"],
    "preprocess Job": ["preprocess-job"],
    **{trainers_in(package): trainers_in(package).split(", ") for package in PACKAGES},
    "helm test": ["trial"],
    "embedded mode": [],
    "make demo": [],
    "flts": [],
}
OTHERS = {
    # These images have no settings class. Listed are the settings that deploy/mlflow/serve.py and locust/target.py
    # read.
    "mlflow": ["ALLOW_DEFAULT_CREDENTIALS", "AWS_DEFAULT_REGION", "MLFLOW_S3_ENDPOINT_URL", "NAMESPACE_PREFIX"],
    "locust-master": ["GATEWAY_URL", "INFERENCE_URL"],
    "locust-worker": ["GATEWAY_URL", "INFERENCE_URL"],
}
NOT_CHOSEN = frozenset(
    {
        # Set by the chart's templates: ports, folders, the kind of store, the workload's name.
        *("SERVICE_HOST", "SERVICE_PORT", "CACHE_DIR", "STORE", "STORE_PATH", "MODEL_TYPE", "DATASET_NAME"),
        # The image sets FLTS_COMMIT; tests set KILL_POINTS.
        *("FLTS_COMMIT", "KILL_POINTS"),
        # Read from the Kubernetes Secret, which also contains AWS_SECRET_ACCESS_KEY.
        "AWS_ACCESS_KEY_ID",
    }
)
TRAINS = "Trains "
"""Prefix of the description of a trainer's values."""
INTRODUCTION = """\
# Values of the chart

Written by `make generate` from `.helm/values.yaml` and `.helm/values.schema.json`, which refuses every other key.
`config` and the `env` of services take the variables of [configuration.md](configuration.md), less what the chart
decides itself (ports, folders, which workload it is) and less secrets.

| key | default | meaning |
|---|---|---|
"""


def main() -> int:
    """Write the files; with ``--check`` print the stale ones and return 1 if there are any."""
    wanted = files()
    there = {path for name in COPIED for path in (CHART / "files" / name).rglob("*") if path.is_file()}
    if "--check" in sys.argv[1:]:
        stale = [path for path, wants in wanted.items() if not path.is_file() or path.read_bytes() != wants]
        stale += there - wanted.keys()
        for path in sorted(stale):
            print(f"{path.relative_to(ROOT)} is stale: make generate")
        return 1 if stale else 0
    for path in there - wanted.keys():
        path.unlink()
    for path, wants in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wants)
    return 0


def files() -> dict[Path, bytes]:
    """Return every generated file with its content."""
    found = {
        CHART / "files" / path.relative_to(ROOT / "deploy"): path.read_bytes()
        for name in COPIED
        for path in (ROOT / "deploy" / name).rglob("*")
        if path.is_file()
    }
    found[CHART / "config" / "readers.json"] = _json(readers())
    found[SCHEMA] = _json(schema())
    found[ROOT / "docs" / "helm-values.md"] = document().encode()
    return found


def readers() -> dict[str, list[str]]:
    """Return the settings that each workload reads and that an installation may choose."""
    found = {
        workload: sorted(_choices(loaded))
        for reader, loaded in _classes()
        for workload in WORKLOADS.get(reader, [reader])
    }
    return {**found, **OTHERS}


def schema() -> dict[str, Any]:
    """Return the values' schema with its settings and trainers filled in; the rest of it is written by hand."""
    values = {name: value for _, loaded in _classes() for name, value in values_of(loaded).items()}
    chosen = sorted(set().union(*readers().values()))
    found: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
    found["definitions"]["settings"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: values[name] for name in chosen},
    }
    services = found["properties"]["services"]
    kept = {
        name: entry for name, entry in services["properties"].items() if not entry["description"].startswith(TRAINS)
    }
    trainers = {values_key(trainer): _trainer_schema(trainer) for trainer in TRAINERS}
    first = list(kept).index("eval")  # trainers come before eval, as in the pipeline
    ordered = [*list(kept.items())[:first], *trainers.items(), *list(kept.items())[first:]]
    services["properties"] = dict(ordered)
    services["required"] = [name for name, _ in ordered]
    return found


def _trainer_schema(trainer: Trainer) -> dict[str, str]:
    waits = " Eval waits for the model types whose trainers are enabled." if trainer == TRAINERS[0] else ""
    return {"$ref": "#/definitions/service", "description": f"{TRAINS}{trainer.model_type}.{waits}"}


def document() -> str:
    """Return the table of the values' keys."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    rows = [f"| `{key}` | {_default(values, key)} | {meaning} |" for key, meaning in keys(schema())]
    return INTRODUCTION + "\n".join(rows) + "\n"


def keys(part: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every key that has a description, with its description."""
    definitions = json.loads(SCHEMA.read_text(encoding="utf-8"))["definitions"]
    for name, entry in part.get("properties", {}).items():
        kind = definitions[entry["$ref"].rpartition("/")[2]] if "$ref" in entry else entry
        if meaning := entry.get("description") or kind.get("description"):
            yield f"{prefix}{name}", meaning
        yield from keys(kind, f"{prefix}{name}.")


def _classes() -> Iterator[tuple[str, type[Settings]]]:
    for reader, path in READERS:
        module, _, name = path.partition(":")
        yield reader, getattr(importlib.import_module(module), name)


def _choices(loaded: type[Settings]) -> Iterator[str]:
    for name, info in loaded.model_fields.items():
        secret = SecretStr in (info.annotation, *getattr(info.annotation, "__args__", ()))
        if name.upper() not in NOT_CHOSEN and not secret:
            yield name.upper()


def _default(values: Any, key: str) -> str:
    for name in key.split("."):
        values = values[name]
    if isinstance(values, dict) and values:
        return ""
    return f"`{json.dumps(values)}`"


def _json(found: object) -> bytes:
    return (json.dumps(found, indent=2) + "\n").encode()


if __name__ == "__main__":
    raise SystemExit(main())
