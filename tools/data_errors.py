"""The error codes of an upload, with their messages, from the source text of the modules that raise them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from flts.errors import SeriesTooShortError
from gateway_container.domain.same_data import refuse_other_data

ELLIPSIS = "\u2026"
ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("flts/ingest", "flts/times")
MODULES: dict[str, frozenset[str]] = {
    "flts/forecasting/step_setting.py": frozenset(),
    "flts/forecasting/observed_grid.py": frozenset(),
    "flts/forecasting/recipe.py": frozenset(),
    "flts/forecasting/roles.py": frozenset(),
    "flts/forecasting/series.py": frozenset({"irregular_times"}),
    "flts/settings.py": frozenset({"unknown_setting", "bad_setting"}),
    "gateway_container/checking.py": frozenset(),
    "gateway_container/domain/same_data.py": frozenset(),
}
"""Further modules, with the codes that an upload can have; empty: all codes of the module."""
NOT_OF_UPLOADS = frozenset({"flts/times/format.py"})
"""Modules whose errors are about stored recipes and single requests."""
CONFLICTS = frozenset({refuse_other_data.__module__})
"""Modules whose errors are answered with 409."""


def errors() -> Iterator[str]:
    """Yield the table of error codes: the HTTP status and each message, with an ellipsis for each part that varies."""
    found: dict[str, list[str]] = {}
    conflicts = set()
    for path, codes in sources():
        for code, texts in messages(path.read_text(encoding="utf-8")):
            if codes and code not in codes:
                continue
            known = found.setdefault(code, [])
            known.extend(text for text in texts if text not in known)
            if ".".join(path.relative_to(ROOT).with_suffix("").parts) in CONFLICTS:
                conflicts.add(code)
    yield from ("| code | status | messages |", "|---|---|---|")
    for code, known in sorted(found.items()):
        shown = "<br>".join(text.replace("|", "\\|").replace("<", "&lt;") for text in known)
        yield f"| `{code}` | {409 if code in conflicts else 422} | {shown} |"


def sources() -> Iterator[tuple[Path, frozenset[str]]]:
    """Yield the modules that read and check an upload, and the codes that count; empty: all."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).glob("*.py")):
            if path.relative_to(ROOT).as_posix() not in NOT_OF_UPLOADS:
                yield path, frozenset()
    for module, codes in MODULES.items():
        yield ROOT / module, codes


def messages(source: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return (code, messages) of each error that a module raises; without a message if it is computed elsewhere."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            _follow(node.body, {}, found)
    return found


Texts = dict[str, tuple[str, ...]]
"""The messages that a variable may have."""


def _follow(statements: list[ast.stmt], texts: Texts, found: list[tuple[str, tuple[str, ...]]]) -> Texts | None:
    """Add the errors of a block to ``found``; return the variables after it, or None if it ends the function."""
    for statement in statements:
        if isinstance(statement, ast.FunctionDef):
            continue
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            texts = {**texts, statement.targets[0].id: _texts(statement.value, texts)}
        elif isinstance(statement, ast.AugAssign):
            continue
        for child in ast.iter_child_nodes(statement):
            if isinstance(child, ast.expr):
                found.extend(_errors(child, texts))
        if isinstance(statement, ast.Raise | ast.Return | ast.Continue | ast.Break):
            return None
        branches = [block for name in ("body", "orelse", "finalbody") if (block := getattr(statement, name, None))]
        branches += [handler.body for handler in getattr(statement, "handlers", ())]
        if branches:
            ends = [_follow(branch, texts, found) for branch in branches]
            if isinstance(statement, ast.If) and statement.orelse and not any(ends):
                return None
            before = [] if isinstance(statement, ast.If) and statement.orelse else [texts]
            texts = _merged([*before, *(end for end in ends if end is not None)])
    return texts


def _merged(parts: list[Texts]) -> Texts:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: tuple(dict.fromkeys(text for part in parts for text in part.get(name, ()))) for name in names}


def _errors(expression: ast.expr, texts: Texts) -> Iterator[tuple[str, tuple[str, ...]]]:
    for call in ast.walk(expression):
        if isinstance(call, ast.Call) and (code := _code(call)) and call.args:
            yield code, _texts(call.args[0], texts)


def _code(call: ast.Call) -> str:
    for keyword in call.keywords:
        if keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
            return str(keyword.value.value)
    is_too_short = isinstance(call.func, ast.Name) and call.func.id == SeriesTooShortError.__name__
    return SeriesTooShortError.code if is_too_short else ""


def _texts(value: ast.expr, texts: Texts) -> tuple[str, ...]:
    """Return the messages of an expression, with an ellipsis for each part that varies."""
    if isinstance(value, ast.Name):
        return texts.get(value.id, ())
    if isinstance(value, ast.Constant):
        return (str(value.value),)
    if isinstance(value, ast.BinOp):
        return tuple(f"{text}{ELLIPSIS}" for text in _texts(value.left, texts))
    if not isinstance(value, ast.JoinedStr):
        return ()
    parts = (str(part.value) if isinstance(part, ast.Constant) else ELLIPSIS for part in value.values)
    return (re.sub(f"{ELLIPSIS}{{2,}}", ELLIPSIS, "".join(parts)),)
