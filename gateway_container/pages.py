"""The page at ``/``: routes, runs and champions, without external resources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { margin: .3rem 0 1rem; } code { background: var(--soft); padding: .1rem .3rem; border-radius: .2rem; }
table { border-collapse: collapse; width: 100%; } th { font-weight: 600; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number { font-variant-numeric: tabular-nums; }
"""
SCORE = (
    "The score is the error over the horizon on held-out rows, in units of the best baseline's error at each step: 1 "
    "is the best baseline, lower is better. Runs of release 0.1.0 have the scaled error itself."
)


def home_page(
    *,
    runs: Iterable[Mapping[str, Any]],
    champions: Mapping[str, Mapping[str, Any]],
    routes: Iterable[tuple[str, str, str]],
    mlflow_ui_url: str,
) -> str:
    """Return the page.

    Parameters
    ----------
    runs : iterable of run summaries
    champions : mapping
        Champion pointers by identifier.
    routes : iterable of (method, path, summary)
    mlflow_ui_url : str
        Empty: no link.
    """
    links = ['<a href="/docs">API documentation</a>', '<a href="/metrics">metrics</a>']
    if mlflow_ui_url.startswith(("http://", "https://")):
        links.append(f'<a href="{escape(mlflow_ui_url)}">MLflow</a>')
    champion_rows = [
        _row(
            name,
            _model(pointer),
            _number(pointer.get("score")),
            _short(pointer.get("run_id")),
            pointer.get("timestamp"),
        )
        for name, pointer in sorted(champions.items())
    ]
    run_rows = [
        _row(
            _Html(f'<a href="/runs/{escape(str(run["pipeline_run_id"]))}">{escape(str(run["pipeline_run_id"]))}</a>'),
            run.get("identifier"),
            run.get("cause"),
            run.get("outcome") or run.get("state"),
            run.get("model_type"),
            _number(run.get("score")),
            _seconds(run.get("elapsed_seconds")),
            run.get("created_at"),
        )
        for run in runs
    ]
    route_rows = [_row(_Html(f"<code>{method} {escape(path)}</code>"), summary) for method, path, summary in routes]
    nothing = "<p>None yet: <code>flts upload NAME train.csv --follow</code></p>"
    return "".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width"><title>FLTS</title>',
            f"<style>{STYLE}</style></head><body><h1>FLTS</h1>",
            f"<p>A CSV of measurements becomes a served, measured forecast. {' · '.join(links)}</p>",
            "<h2>Champions</h2>",
            f"<p>{SCORE}</p>",
            _table(("data set", "model", "score", "run id", "since"), champion_rows) if champion_rows else nothing,
            "<h2>Runs</h2>",
            _table(("run", "data set", "cause", "state", "model", "score", "took", "started"), run_rows)
            if run_rows
            else nothing,
            "<h2>Routes</h2>",
            _table(("route", "what it does"), route_rows),
            "</body></html>",
        )
    )


def _model(pointer: Mapping[str, Any]) -> str:
    """Return a champion's model type, with its stage and with the reason of a served baseline."""
    stage = f" ({pointer['stage']})" if pointer.get("stage") else ""
    reason = f" ({pointer['baseline']})" if pointer.get("baseline") else ""
    return f"{pointer.get('model_type')}{stage}{reason}"


class _Html(str):
    """Text that is HTML and must not be escaped."""

    __slots__ = ()


def _table(names: tuple[str, ...], rows: list[str]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _row(*cells: object) -> str:
    return "<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in cells) + "</tr>"


def _cell(value: object) -> str:
    if isinstance(value, _Html):
        return value
    return "" if value is None else escape(str(value))


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, (int, float)) else ""


def _seconds(value: object) -> str:
    return f"{value:.1f} s" if isinstance(value, (int, float)) else ""


def _short(value: object) -> str:
    return str(value)[:8] if value else ""
