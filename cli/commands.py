"""The commands: each sends requests to the gateway, prints the answer and returns the exit code."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from cli import render
from cli.arguments import DEFAULT_HORIZON, DEFAULT_ROWS, parse_settings
from cli.causes import cause_lines, deleted_lines
from cli.client import ApiError, GatewayClient
from cli.follow import LiveTable, PlainLines, follow_run
from cli.rows import body_from_csv
from cli.scoreboard import WIDTH
from flts.contracts import lifecycle
from flts.errors import NotFoundError, RejectedError

OK, FAILED, USAGE = 0, 1, 2
MOST_FUTURE_ROWS = 10_000
"""Last rows of a file with values known ahead that are sent."""
WHY_SHOWN = (
    "pipeline_run_id",
    "identifier",
    "cause",
    "of_run",
    "reason",
    "settings",
    "force",
    "outcome",
    "outcome_details",
    "decision",
    "scoreboard",
)


MISSING_FUTURE = "missing_future"
"""Error code of /predict for a step without a value of a future column."""


class UsageError(Exception):
    """The command cannot run with these arguments. Exit code 2."""


def upload(client: GatewayClient, arguments: argparse.Namespace) -> int:
    """Upload a data set."""
    settings = _settings(arguments)
    answer = client.upload(
        arguments.name,
        arguments.train,
        arguments.test,
        settings=settings,
        force=arguments.force,
        reason=arguments.reason,
        replace=arguments.replace,
    )
    return _started(client, arguments, answer)


def retrain(client: GatewayClient, arguments: argparse.Namespace) -> int:
    """Start a run on the newest upload."""
    answer = client.start_run(
        arguments.name,
        settings=_settings(arguments),
        force=arguments.force,
        salt=arguments.salt,
        reason=arguments.reason,
    )
    return _started(client, arguments, answer)


def evaluate(client: GatewayClient, arguments: argparse.Namespace) -> int:
    """Start a run that evaluates another run's models again."""
    return _started(client, arguments, client.evaluate_again(arguments.run, reason=arguments.reason))


def cancel(client: GatewayClient, arguments: argparse.Namespace) -> int:
    """End a run without a decision."""
    answer = client.cancel(arguments.run, reason=arguments.reason)
    return show(arguments, answer, [f"cancelled: {answer['pipeline_run_id']} on {answer['identifier']}"])


def rollback(client: GatewayClient, arguments: argparse.Namespace) -> int:
    """Start a run that makes an earlier champion the current one again."""
    return _started(client, arguments, client.roll_back(arguments.name, of_run=arguments.to, reason=arguments.reason))


def runs(client: GatewayClient, arguments: argparse.Namespace) -> int:
    """List runs."""
    found = client.runs(arguments.identifier, limit=arguments.limit)
    return show(arguments, {"runs": found}, render.runs_table(found))


def datasets(client: GatewayClient, arguments: argparse.Namespace) -> int:
    """List data sets."""
    found = client.datasets()
    return show(arguments, {"datasets": found}, render.datasets_table(found))


def models(client: GatewayClient, arguments: argparse.Namespace) -> int:
    """List champions."""
    answer = client.models()
    return show(arguments, answer, render.models_table(answer))


def follow(client: GatewayClient, arguments: argparse.Namespace) -> int:
    """Show a run live."""
    if bool(arguments.run) == bool(arguments.last):
        msg = "name a run or say --last; `flts runs` lists them"
        raise UsageError(msg)
    run_id = arguments.run or _last_run(client, arguments.identifier)["pipeline_run_id"]
    if arguments.json:
        view: dict[str, Any] = {}
        for event in client.follow(run_id, on_break=_complain):
            _print_json({"event": event.kind, "data": event.data})
            view = event.data
        return _exit_code(view)
    view = watch(client, run_id)
    show_lines(render.decision_lines(view))
    return _exit_code(view)


def why(client: GatewayClient, arguments: argparse.Namespace) -> int:
    """Show a run's scoreboard and decision."""
    run_id = arguments.run
    if not _is_run_id(run_id):
        found = client.runs(run_id, limit=50)
        decided = next((run for run in found if run.get("outcome")), None)
        if not found:
            return _why_nothing(client, arguments, run_id)
        if decided is None:
            msg = f"no run on {run_id} has ended yet; `flts follow --last --identifier {run_id}` shows how far it is"
            raise NotFoundError(msg, code="not_decided", field="run")
        run_id = decided["pipeline_run_id"]
    view = client.run(run_id)
    done = client.operations(str(view["identifier"]), run_id=run_id)["operations"]
    if arguments.json:
        stages = {name: view[name] for name in ("champion_stages",) if name in view}
        _print_json({**{name: view.get(name) for name in WHY_SHOWN}, **stages, "operations": done})
        return OK
    lines = [render.run_heading(view), *cause_lines(view, done), "", *_scoreboard_lines(view)]
    if arguments.targets:
        lines += ["", *render.target_table(view, step=arguments.step)]
    show_lines([*lines, "", *render.decision_lines(view)])
    return OK


def _why_nothing(client: GatewayClient, arguments: argparse.Namespace, identifier: str) -> int:
    """Show the operations on a data set that has no runs, such as its deletion."""
    answer = client.operations(identifier)
    if not answer["operations"] and answer["deletion"] is None:
        msg = f"there are no runs on {identifier} yet: flts upload {identifier} train.csv"
        raise NotFoundError(msg, code="no_runs", field="run")
    lines = deleted_lines(identifier, answer["operations"], answer["deletion"])
    return show(arguments, {"identifier": identifier, **answer}, lines)


def forecast(client: GatewayClient, arguments: argparse.Namespace) -> int:
    """Request a forecast and show it."""
    if arguments.csv is not None:
        body = body_from_csv(arguments.csv, rows=arguments.rows or DEFAULT_ROWS, ignore=arguments.ignore)
    champion = client.champion(arguments.name)
    if arguments.csv is None:
        stored = arguments.rows is None and _has_newest_rows(client, champion)
        measured = {} if stored and arguments.plot is None else client.tail(arguments.name, rows=arguments.rows)
        body = {} if stored else measured
    needed = int(champion.get("rows_required") or 0)
    if arguments.csv is not None and arguments.rows is None and needed > DEFAULT_ROWS:
        body = body_from_csv(arguments.csv, rows=needed, ignore=arguments.ignore)
    if arguments.csv is not None:
        measured = body
    horizon = arguments.horizon or _horizon(champion)
    if arguments.future is not None:
        body = _with_future(body, body_from_csv(arguments.future, rows=MOST_FUTURE_ROWS, ignore=arguments.ignore))
    try:
        answer = client.forecast(body, horizon=horizon, identifier=arguments.name, quantiles=arguments.quantiles)
    except ApiError as error:
        if error.code != MISSING_FUTURE:
            raise
        raise _how_to_send_future(error, champion, arguments.future) from error
    known = render.forecast_targets(answer)
    unknown = [target for target in arguments.target if target not in known]
    if unknown:
        msg = f"{', '.join(unknown)}: not a target of {arguments.name}; it has {', '.join(known)}"
        raise RejectedError(msg, code="unknown_target", field="target")
    if arguments.plot is not None:
        from cli.plot import plot_forecast  # noqa: PLC0415 - importing matplotlib takes half a second; only --plot needs it

        plot_forecast(measured, answer, arguments.plot, targets=arguments.target)
        sys.stderr.write(f"wrote {arguments.plot}\n")
    return show(arguments, answer, render.forecast_table(answer, targets=arguments.target))


def resume(client: GatewayClient, arguments: argparse.Namespace) -> int:
    """Announce unfinished runs again."""
    resumed = client.resume(arguments.run, older_than_seconds=arguments.older_than_seconds, reason=arguments.reason)
    lines = [f"announced again: {run_id}" for run_id in resumed] or ["no run is unfinished and silent for so long"]
    return show(arguments, {"resumed": resumed}, lines)


COMMANDS: dict[str, Callable[[GatewayClient, argparse.Namespace], int]] = {
    "upload": upload,
    "retrain": retrain,
    "runs": runs,
    "datasets": datasets,
    "models": models,
    "follow": follow,
    "why": why,
    "forecast": forecast,
    "evaluate": evaluate,
    "rollback": rollback,
    "cancel": cancel,
    "resume": resume,
}


def watch(client: GatewayClient, run_id: str, *, timeout_seconds: float | None = None) -> dict[str, Any]:
    """Show a run until its end, live on a terminal and in plain lines elsewhere; return its last view.

    Raises
    ------
    StillRunningError
        If the run has not ended after ``timeout_seconds``.
    """
    console = Console()
    if console.is_terminal:
        with LiveTable(console) as display:
            return follow_run(client, run_id, display, timeout_seconds=timeout_seconds)
    return follow_run(client, run_id, PlainLines(_print_line), timeout_seconds=timeout_seconds)


def _started(client: GatewayClient, arguments: argparse.Namespace, answer: dict[str, Any]) -> int:
    run_id = answer["pipeline_run_id"]
    if not arguments.follow:
        lines = [*render.upload_lines(answer), f"flts follow {run_id} shows how it goes on"]
        return show(arguments, answer, lines)
    if arguments.json:
        view: dict[str, Any] = {}
        for event in client.follow(run_id, on_break=_complain):
            view = event.data
        _print_json({"upload": answer, "run": view})
        return _exit_code(view)
    show_lines(render.upload_lines(answer))
    view = watch(client, run_id)
    show_lines(["", *_scoreboard_lines(view), "", *render.decision_lines(view)])
    return _exit_code(view)


def _scoreboard_lines(view: dict[str, Any]) -> list[str]:
    """Return the scoreboard with as many columns as the terminal has room for."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    return render.scoreboard_table(view, width=width)


def _has_newest_rows(client: GatewayClient, champion: Mapping[str, Any]) -> bool:
    """Return whether the replicas have stored rows, and these are the last uploaded ones.

    The stored rows are those of the data set that the champion was trained on. A newer upload has another config_hash.
    """
    if not champion.get("history_until"):
        return False
    # A run of another run (evaluate, rollback) has no upload of its own.
    runs = [run for run in client.runs(str(champion["identifier"])) if not run.get("of_run")]
    return bool(runs) and client.run(runs[0]["pipeline_run_id"]).get("config_hash") == champion.get("config_hash")


def _horizon(champion: Mapping[str, Any]) -> int:
    """Return the champion's horizon, or DEFAULT_HORIZON if it is a single step or the answer does not show it."""
    steps = champion.get("horizon_steps")
    return int(steps) if steps and steps > 1 else DEFAULT_HORIZON


def _with_future(body: Mapping[str, Any], ahead: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request with the rows of a file as values known ahead.

    The request names the time column of the file, or the file's times get the name of the request's time column.
    """
    times = ahead["index_col"]
    name = body.get("index_col", times)
    future = {name if column == times else column: values for column, values in ahead["data"].items()}
    return {"index_col": name, **body, "future": future}


def _how_to_send_future(error: ApiError, champion: Mapping[str, Any], file: Path | None) -> ApiError:
    """Return the refusal of a forecast that lacks values known ahead, with the columns and the option."""
    columns = ", ".join(champion.get("future_columns") or ()) or str(error.field).removeprefix("future.")
    if file is None:
        how = f"--future FILE.csv sends the values of {columns}, with a column of times"
    else:
        how = f"{file} must have a row for each step, with its time and the values of {columns}"
    return ApiError(f"{error.message}. {how}", status=error.status, code=error.code, field=error.field)


def _settings(arguments: argparse.Namespace) -> dict[str, str | float | bool]:
    try:
        return parse_settings(arguments.set)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _last_run(client: GatewayClient, identifier: str | None) -> dict[str, Any]:
    found = client.runs(identifier, limit=1)
    if not found:
        msg = f"there are no runs{f' on {identifier}' if identifier else ''} yet: flts upload NAME train.csv"
        raise NotFoundError(msg, code="no_runs")
    return found[0]


def _is_run_id(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _exit_code(view: dict[str, Any]) -> int:
    return OK if view.get("outcome") in lifecycle.SERVED else FAILED


def show(arguments: argparse.Namespace, answer: dict[str, Any], lines: Iterable[str]) -> int:
    """Print an answer as lines, or as JSON with ``--json``; return the exit code 0."""
    if arguments.json:
        _print_json(answer)
    else:
        show_lines(lines)
    return OK


def _print_json(value: dict[str, Any]) -> None:
    _print_line(json.dumps(value))


def show_lines(lines: Iterable[str]) -> None:
    """Print the lines."""
    for line in lines:
        _print_line(line)


def _print_line(line: str) -> None:
    print(line, flush=True)


def _complain(reason: str) -> None:
    sys.stderr.write(f"{reason}; connecting again\n")
