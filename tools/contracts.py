"""Write the schema of every event and ``docs/contracts.md``: ``python -m tools.contracts [--check]``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from flts.contracts import topics
from flts.contracts.events import Event

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "contract" / "golden"


def schema(event: type[Event]) -> str:
    """Return the JSON schema of an event, in the form of the golden files."""
    return json.dumps(event.model_json_schema(), indent=2, sort_keys=True) + "\n"


def document() -> str:
    """Return the page that lists topics, events and their fields."""
    lines = [
        "# Contracts",
        "",
        "Written by `python -m tools.contracts` from `flts/contracts`; `make lint` fails when it is stale.",
        "",
        "Every value is JSON, at most 16 KiB, keyed by the identifier. The header `event` names the class.",
        "",
    ]
    for topic in topics.ALL:
        lines += [f"## {topic.name}", ""]
        for event in topic.events:
            lines += [f"### `{event.HEADER_EVENT}`: {_first_line(event)}", ""]
            lines += ["| field | type | required | meaning |", "|---|---|---|---|"]
            properties: dict[str, Any] = event.model_json_schema()["properties"]
            required = set(event.model_json_schema().get("required", ()))
            for name, entry in properties.items():
                meaning = " ".join(str(entry.get("description", "")).split())
                lines.append(f"| {name} | {_type(entry)} | {'yes' if name in required else 'no'} | {meaning} |")
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Write the files; with ``--check`` print the stale ones and return 1 if there are any."""
    wanted = {GOLDEN / f"{event.__name__}.json": schema(event) for topic in topics.ALL for event in topic.events}
    wanted[ROOT / "docs" / "contracts.md"] = document()
    if "--check" in sys.argv[1:]:
        stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: make generate")
        return 1 if stale else 0
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


def _first_line(event: type[Event]) -> str:
    return (event.__doc__ or "").strip().splitlines()[0]


def _type(entry: dict[str, Any]) -> str:
    if "$ref" in entry:
        return str(entry["$ref"]).rpartition("/")[2]
    if "anyOf" in entry:
        return " or ".join(_type(one) for one in entry["anyOf"])
    if "enum" in entry:
        return " or ".join(f"`{one}`" for one in entry["enum"])
    if "const" in entry:
        return f"`{entry['const']}`"
    if entry.get("type") == "array":
        return f"list of {_type(entry.get('items', {}))}"
    return str(entry.get("type", "any"))


if __name__ == "__main__":
    raise SystemExit(main())
