"""Write ``docs/configuration.md`` from the settings classes: ``python -m tools.configuration [--check]``."""

from __future__ import annotations

import importlib
import inspect
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen
from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from flts.settings import Settings
from flts.trainers import TRAINERS


def trainers_in(package: str) -> str:
    """Return the deployments of a folder's trainers, comma-separated."""
    return ", ".join(trainer.deployment for trainer in TRAINERS if trainer.package == package)


TARGET = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
READERS = (
    # (service, settings class that it loads)
    ("gateway", "gateway_container.settings:GatewaySettings"),
    ("preprocess", "preprocess_container.settings:PreprocessSettings"),
    ("preprocess Job", "preprocess_container.job:JobSettings"),
    (trainers_in("train_container"), "train_container.settings:TrainSettings"),
    (trainers_in("nonML_container"), "nonML_container.settings:NonmlSettings"),
    ("eval", "eval_container.settings:EvalSettings"),
    ("inference", "inference_container.settings:FetchSettings"),
    ("inference-worker", "inference_container.settings:WorkerSettings"),
    ("embedded mode", "embedded.settings:EmbeddedSettings"),
    ("make demo", "embedded.settings:DemoSettings"),
    ("flts", "cli.settings:CliSettings"),
    ("helm test", "gateway_container.trial:TrialSettings"),
)
SERVICES = 8  # number of services among the readers; they come first
INTRODUCTION = """\
# Configuration

Written by `python -m tools.configuration` from the settings classes; change a class, then run `make generate`.

Every setting is an environment variable. An empty variable counts as unset, booleans are true, false, 1 or 0 in any
case, lists are written `A,B,C`. All that is missing or wrong is named together at start, and the service exits with 2.
A setting marked *yes* under "per run" can also be given with an upload or a retrain (`--set EPOCHS=3`).
"""
BOUNDS = ((Ge, "ge", "at least"), (Gt, "gt", "above"), (Le, "le", "at most"), (Lt, "lt", "below"))


@dataclass
class Row:
    """One variable of one class."""

    variable: str
    kind: str
    default: str
    per_run: bool
    text: str
    readers: list[str] = field(default_factory=list)


@dataclass
class Section:
    """The variables that one class declares."""

    owner: type[Settings]
    rows: dict[str, Row] = field(default_factory=dict)


def main() -> int:
    """Write the document; with ``--check`` only return 1 if it is stale."""
    text = document()
    if sys.argv[1:] == ["--check"]:
        if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text:
            return 0
        sys.stderr.write(f"{TARGET.name} is not what the settings classes say: run `make generate`\n")
        return 1
    TARGET.write_text(text, encoding="utf-8")
    print(f"wrote docs/{TARGET.name}")
    return 0


def document() -> str:
    """Return the whole document."""
    return "\n".join([INTRODUCTION, *(_section(section) for section in sections())])


def sections() -> list[Section]:
    """Return the declaring classes, shared ones first, each with its variables and their readers."""
    found: dict[type[Settings], Section] = {}
    for reader, path in READERS:
        module, _, name = path.partition(":")
        loaded: type[Settings] = getattr(importlib.import_module(module), name)
        for field_name, info in loaded.model_fields.items():
            owner = _owner(loaded, field_name)
            rows = found.setdefault(owner, Section(owner)).rows
            if field_name not in rows:
                per_run = field_name.upper() in owner.overridable()
                rows[field_name] = _row(owner, field_name, info, per_run=per_run)
            rows[field_name].readers.append(reader)
    return sorted(found.values(), key=_place)


def _place(section: Section) -> tuple[int, int, str]:
    """Return a section's sort key: flts.settings in its order, then the rest of flts, then by the first reader."""
    module = section.owner.__module__
    names = list(vars(importlib.import_module(module)))
    readers = [name for name, _ in READERS]
    first = min(readers.index(reader) for row in section.rows.values() for reader in row.readers)
    group = 0 if module == "flts.settings" else 1 if module.startswith("flts.") else 2
    return group, first if group else names.index(section.owner.__name__), section.owner.__name__


def _owner(loaded: type[Settings], field_name: str) -> type[Settings]:
    for base in loaded.__mro__:
        if issubclass(base, Settings) and field_name in inspect.get_annotations(base):
            return base
    raise LookupError(field_name)


def _row(owner: type[Settings], field_name: str, info: FieldInfo, *, per_run: bool) -> Row:
    if not info.description:
        msg = f"{owner.__name__}.{field_name} has no docstring"
        raise SystemExit(msg)
    return Row(_variable(field_name, info), _kind(info), _default(info), per_run, " ".join(info.description.split()))


def _variable(field_name: str, info: FieldInfo) -> str:
    alias = info.validation_alias
    names = [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [field_name]
    return " or ".join(f"`{name}`" for name in dict.fromkeys(name.upper() for name in names))


def _kind(info: FieldInfo) -> str:
    kind = _name_of(info.annotation)
    metadata = [*info.metadata, *(extra for part in get_args(info.annotation) for extra in _metadata(part))]
    bounds = [
        f"{words} {getattr(constraint, attribute):,g}"
        if isinstance(getattr(constraint, attribute), float)
        else f"{words} {getattr(constraint, attribute):,}"
        for constraint_type, attribute, words in BOUNDS
        for constraint in metadata
        if isinstance(constraint, constraint_type)
    ]
    unit = "entries" if kind == "list" else "characters"
    lengths = [f"at most {extra.max_length} {unit}" for extra in metadata if isinstance(extra, MaxLen)]
    return ", ".join([kind, *bounds, *lengths])


def _metadata(part: object) -> tuple[Any, ...]:
    # For a Field inside Annotated, Pydantic keeps the constraints one level deeper, in the Field's own `metadata`.
    return tuple(extra for info in getattr(part, "__metadata__", ()) for extra in getattr(info, "metadata", [info]))


def _name_of(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return " \\| ".join(f"`{choice}`" if choice else "empty" for choice in get_args(annotation))
    if origin in {Union, types.UnionType}:
        return " or ".join(_name_of(part) for part in get_args(annotation) if part is not type(None))
    if origin is tuple:
        return "list"
    if hasattr(annotation, "__metadata__"):
        return _name_of(get_args(annotation)[0])
    names = {bool: "boolean", int: "whole number", float: "number", str: "text", Path: "path", SecretStr: "secret"}
    return names[annotation]


def _default(info: FieldInfo) -> str:
    value = info.default
    if value is PydanticUndefined:
        return "**required**"
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`" if value else "empty"
    return f"`{value}`" if str(value) else "empty"


def _section(section: Section) -> str:
    owner = section.owner
    title = owner.__name__.removesuffix("Settings")
    summary = (owner.__doc__ or "").strip().splitlines()[0]
    services = [name for name, _ in READERS][:SERVICES]
    lines = [
        f"## {_words(title)}",
        "",
        f"{summary} (`{owner.__module__}.{owner.__name__}`)",
        "",
        "| variable | type | default | per run | read by | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for row in section.rows.values():
        readers = "every service" if row.readers == services else ", ".join(row.readers)
        per_run = "yes" if row.per_run else ""
        lines.append(f"| {row.variable} | {row.kind} | {row.default} | {per_run} | {readers} | {_cell(row.text)} |")
    return "\n".join([*lines, ""])


def _words(name: str) -> str:
    spaced = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()
    return spaced[:1].upper() + spaced[1:]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    raise SystemExit(main())
