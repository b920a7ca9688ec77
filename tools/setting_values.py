"""The JSON schema of settings in the chart's values, so that a wrong value fails `helm install` and not a pod."""

from __future__ import annotations

from typing import Any

from flts.settings import Settings

BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
NUMBERS = {"integer": r"^(-?[0-9]+)?$", "number": r"^(-?[0-9.]+([eE][-+]?[0-9]+)?)?$"}
"""Patterns of numbers as texts, from `--set-string` or quotes; empty too, because an empty variable counts as unset."""
BOOLEANS = [True, False, 1, 0, "true", "false", "True", "False", "1", "0", ""]


def values_of(loaded: type[Settings]) -> dict[str, dict[str, Any]]:
    """Return the schema of each variable that a class reads."""
    properties = loaded.model_json_schema(by_alias=False)["properties"]
    return {name.upper(): _value(entry) for name, entry in properties.items()}


def _value(entry: dict[str, Any]) -> dict[str, Any]:
    [one] = [option for option in entry.get("anyOf", [entry]) if option.get("type") != "null"]
    kind = one.get("type")
    if kind == "boolean":
        return {"enum": BOOLEANS}
    if kind in NUMBERS:
        bounds = {name: one[name] for name in BOUNDS if name in one}
        texts = [{"const": entry["text"]}] if "text" in entry else []
        return {"anyOf": [{"type": kind, **bounds}, {"type": "string", "pattern": NUMBERS[kind]}, *texts]}
    if "enum" in one:
        return {"enum": list(dict.fromkeys((*one["enum"], "")))}
    if "pattern" in one:
        return {"anyOf": [{"const": ""}, {"type": "string", "pattern": one["pattern"]}]}
    # A text or a list. A number is allowed too, because YAML reads a column named 1 in `TARGETS: 1` as a number.
    return {"type": ["string", "number"]}
