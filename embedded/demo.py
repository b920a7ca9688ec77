"""`make demo`: run a CSV through the whole pipeline, show the progress, then serve forecasts until Ctrl-C."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli import render
from cli.arguments import DEFAULT_HORIZON
from cli.client import ApiError, GatewayClient
from cli.commands import watch
from cli.plot import plot_forecast
from cli.scoreboard import decision_lines, scoreboard_table
from cli.text import duration
from embedded.meter import MemoryMeter
from embedded.settings import DemoSettings, EmbeddedSettings
from embedded.stack import Stack
from flts.contracts import lifecycle
from flts.contracts.champion_stage import PROVISIONAL
from flts.contracts.ids import check_identifier
from flts.errors import FltsError, NotFoundError, RejectedError
from flts.ingest.sample import SAMPLE_IDENTIFIER, write_sample

SERVED_SECONDS = 60.0
"""Longest wait in seconds until a promoted champion is served; a replica needs a few seconds."""
PROVISIONAL_POLL_SECONDS = 0.5
"""Seconds between two requests for a provisional champion, which is served seconds after the upload."""
CONTEXT_ROWS = 200
SHOWN_PROCESSES = 4
SHOWN_TARGETS = 4
TRY_AGAIN = (502, 503, 504)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DataSet:
    """The files that the demo uploads."""

    identifier: str
    train: Path
    test: Path | None


def run_demo(settings: EmbeddedSettings, demo: DemoSettings, say: Say) -> int:
    """Start the pipeline, run one data set up to a served forecast, show the progress, and serve.

    Returns
    -------
    int
        0 if a forecast was served, 1 if not.
    """
    dataset = choose_dataset(settings, demo)  # reports a wrong path before any process starts
    began = time.monotonic()
    with MemoryMeter() as meter, Stack(settings, say) as stack:
        say(f"Starting broker, store, MLflow and the services; their logs are in {stack.home / 'logs'}")
        stack.wait_ready(report=_waiting_reporter(say))
        say(f"Ready after {duration(time.monotonic() - began)}.")
        with GatewayClient(stack.endpoints.gateway_url, stack.api_key) as client:
            view, uploaded, fresh = _run_to_decision(client, dataset, demo.demo_timeout_seconds, say)
            _show_scoreboard(view, say)
            served = _show_forecast(client, stack, view, say, fresh=fresh)
            if served is not None and uploaded is not None:
                _say_time(view, served - uploaded, say)
        say("")
        _say_costs(meter, time.monotonic() - began, say)
        _say_addresses(stack, say)
        if not demo.once:
            say("Serving until Ctrl-C.")
            threading.Event().wait()
        return 0 if served is not None else 1


def choose_dataset(settings: EmbeddedSettings, demo: DemoSettings) -> DataSet:
    """Return the data set that the settings name, or the generated sample.

    Raises
    ------
    RejectedError
        If a file does not exist, TEST comes without DATA, or the name cannot be an identifier.
    """
    for field, path in (("DATA", demo.data), ("TEST", demo.test)):
        if path is not None and not path.is_file():
            msg = f"{field}: there is no file {path}"
            raise NotFoundError(msg, field=field)
    # NAME sets the data set's name. Windows also sets NAME, to the machine's name, so that value is ignored.
    given = demo.name if demo.name != socket.gethostname() else ""
    if demo.data is None:
        if demo.test is not None:
            msg = "TEST needs DATA: the file with the training rows"
            raise RejectedError(msg, field="DATA")
        train, test = write_sample(settings.flts_home / "sample")
        return DataSet(given or SAMPLE_IDENTIFIER, train, test)
    name = given or re.sub(r"[^A-Za-z0-9._-]+", "-", demo.data.stem)
    return DataSet(check_identifier(name), demo.data, demo.test)


def _run_to_decision(
    client: GatewayClient, dataset: DataSet, timeout_seconds: float, say: Say
) -> tuple[dict[str, Any], float | None, bool]:
    """Return the decided run, the time of its upload (None if it was there before), and whether it ended just now."""
    earlier = _earlier_run(client, dataset)
    began: float | None = None
    if earlier is not None:
        run_id = str(earlier["pipeline_run_id"])
        state = "is finished" if earlier.get("outcome") else "goes on"
        say(f"{dataset.identifier} was uploaded before, with these very rows: run {run_id} {state}.")
        say(f"Settings given now apply to new runs; for one: flts retrain {dataset.identifier} --set EPOCHS=20")
    else:
        size = dataset.train.stat().st_size + (dataset.test.stat().st_size if dataset.test else 0)
        say(f"Uploading {dataset.train} as {dataset.identifier} ({size / 1e6:.1f} MB)")
        began = time.monotonic()
        answer = client.upload(dataset.identifier, dataset.train, dataset.test)
        for line in render.upload_lines(answer):
            say(line)
        run_id = str(answer["pipeline_run_id"])
    fresh = earlier is None or not earlier.get("outcome")
    if fresh:
        with _provisional_told(client, dataset.identifier, began, say):
            watch(client, run_id, timeout_seconds=timeout_seconds)
    return client.run(run_id), began, fresh


@contextmanager
def _provisional_told(client: GatewayClient, identifier: str, began: float | None, say: Say) -> Iterator[None]:
    """Print during the block when a provisional champion answers; nothing without the time of the upload."""
    ended = threading.Event()

    def poll(began: float) -> None:
        while not ended.wait(PROVISIONAL_POLL_SECONDS):
            try:
                champion = client.champion(identifier)
                if champion.get("stage") != PROVISIONAL:
                    continue
                client.forecast(client.tail(identifier), identifier=identifier)
            except FltsError:  # the same errors as in `_first_forecast`; a line less is no failure of the demo
                continue
            seconds = time.monotonic() - began
            say(f"a provisional forecast is served after {seconds:.1f} s: {champion.get('model_type')}")
            return

    if began is None:
        yield
        return
    thread = threading.Thread(target=poll, args=(began,), name="provisional", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _earlier_run(client: GatewayClient, dataset: DataSet) -> dict[str, Any] | None:
    wanted = _sha256(dataset.train), _sha256(dataset.test) if dataset.test else None
    for run in client.runs(dataset.identifier, limit=20):
        whole = client.run(str(run["pipeline_run_id"]))
        claims = whole.get("train") or {}, whole.get("test") or {}
        same = (claims[0].get("sha256"), claims[1].get("sha256")) == wanted
        if same and whole.get("outcome") in {None, *lifecycle.SERVED}:
            # The run of this data is unfinished, or it ended with a decision, so the demo uses it. After any other
            # outcome the demo starts a new run.
            return whole
    return None


def _show_scoreboard(view: dict[str, Any], say: Say) -> None:
    say("")
    for line in [*scoreboard_table(view), "", *decision_lines(view), "", *render.stage_table(view)]:
        say(line)


def _show_forecast(client: GatewayClient, stack: Stack, view: dict[str, Any], say: Say, *, fresh: bool) -> float | None:
    """Print a forecast of the champion and write its plot; return when it was served, or None.

    ``fresh``: the run ended in this session, so its champion must answer and not an earlier one.
    """
    identifier = str(view["identifier"])
    body, answer = _first_forecast(client, identifier, view if fresh else {})
    if answer is None:
        say(f"No champion is served for {identifier}: the reasons stand above (flts why {identifier}).")
        return None
    served = time.monotonic()
    plot = stack.home / f"forecast-{identifier}.png"
    plot_forecast(body, answer, plot)
    say("")
    targets = render.forecast_targets(answer)
    for line in render.forecast_table(answer, targets=targets[:SHOWN_TARGETS]):
        say(line)
    if len(targets) > SHOWN_TARGETS:
        say(f"and {', '.join(targets[SHOWN_TARGETS:])}: flts forecast {identifier}")
    say(f"Plot of the forecast: {plot}")
    return served


def _first_forecast(
    client: GatewayClient, identifier: str, view: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Request a forecast until the model that this run promoted answers, or any model if it promoted none."""
    decision = view.get("decision") or {}
    promoted = decision.get("run_id") if decision.get("decision") == "promoted" else None
    body: dict[str, Any] = {}
    rows = 0
    deadline = time.monotonic() + (SERVED_SECONDS if promoted or not view else 5.0)
    while True:
        try:
            champion = client.champion(identifier)
            needed = max(CONTEXT_ROWS, int(champion.get("rows_required") or 0))
            horizon, ahead = _served_horizon(champion), champion.get("future_columns") or ()
            needed += horizon if ahead else 0
            if needed > rows:
                body, rows = client.tail(identifier, rows=needed), needed
            request = _known_ahead(body, ahead, horizon) if ahead else body
            answer = client.forecast(request, horizon=horizon, identifier=identifier)
            if promoted is None or answer.get("run_id") == promoted or time.monotonic() > deadline:
                return body, answer
        except ApiError as error:
            # The replica gives these errors while it fetches the champion, so the request is repeated: the champion may
            # change between the two requests, and need more rows. Any other error is raised at once.
            if error.status not in TRY_AGAIN and error.code not in {"unknown_identifier", "too_few_rows"}:
                raise
        if time.monotonic() > deadline:
            return body, None
        time.sleep(0.2)


def _known_ahead(body: Mapping[str, Any], columns: Sequence[str], horizon: int) -> dict[str, Any]:
    """Return a request for the last ``horizon`` rows of a tail, whose values of the columns known ahead are known."""
    data = body["data"]
    earlier = {name: values[:-horizon] for name, values in data.items()}
    return {**body, "data": earlier, "future": {name: data[name][-horizon:] for name in columns}}


def _served_horizon(champion: Mapping[str, Any]) -> int:
    """Return the champion's horizon, or `DEFAULT_HORIZON` if it is a single step, but not more than it forecasts."""
    steps = int(champion.get("horizon_steps") or 1)
    wanted = steps if steps > 1 else DEFAULT_HORIZON
    return min(wanted, int(champion.get("max_horizon_steps") or wanted))


def _waiting_reporter(say: Say) -> Callable[[list[str]], None]:
    said: list[list[str]] = [[]]

    def tell(waiting: list[str]) -> None:
        if waiting != said[0]:
            say(f"  waiting for {', '.join(waiting)}")
            said[0] = waiting

    return tell


def _say_time(view: dict[str, Any], seconds: float, say: Say) -> None:
    at_work = (render.explained_share(view) or 0.0) * float(view.get("elapsed_seconds") or 0.0)
    share = min(1.0, at_work / seconds)
    say(f"from upload to the first served forecast {seconds:.1f} s, of which the stages explain {share:.0%}")


def _say_costs(meter: MemoryMeter, seconds: float, say: Say) -> None:
    largest = sorted(meter.peak_by_process.items(), key=lambda entry: -entry[1])[:SHOWN_PROCESSES]
    parts = ", ".join(f"{name} {size / 2**20:.0f} MiB" for name, size in largest)
    peak = f"{meter.peak_bytes / 2**30:.2f} GiB"
    say(f"It cost {duration(seconds)} and a peak memory of {peak} in all (largest: {parts}).")


def _say_addresses(stack: Stack, say: Say) -> None:
    say(f"Gateway {stack.endpoints.gateway_url}, its API's documentation {stack.endpoints.gateway_url}/docs")
    say(f"Inference {stack.endpoints.inference_url}/predict, MLflow {stack.endpoints.mlflow_url}")
    say(f"The API key is in {stack.home / 'api-key'}; `flts` finds it by itself.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
