"""Requests per second and memory of one inference replica: ``python -m tests.serving_costs [SECONDS]``.

A server process on one core serves a GRU that rolls its own forecasts (10 rows in, one step out, the champion of
release 0.1.0) and a LINEAR of 60 steps, both with 11 targets. 32 connections on another core ask one model and the
other in turn, so that a change of the machine's speed changes both. They send ten rows, which LINEAR continues from the
stored ones. A second server holds 16 champions with histories; its memory is that of the server process without its
fetching child.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import psutil

from embedded.ports import free_port
from flts.bundle.format import Bundle
from flts.forecasting.grid import FixedGrid
from flts.forecasting.recipe import RecipeSpec, fit_recipe, transform
from flts.forecasting.series import Series
from flts.forecasting.splits import as_train
from flts.settings import WindowSettings
from flts.storage.filesystem import FilesystemStore
from flts.storage.run_store import RunStore
from flts.trainers import trainer_of
from flts.training import dataset
from flts.training.bundling import Identity, make_bundle
from flts.training.linear import make_linear
from inference_container.settings import FetchSettings, WorkerSettings
from inference_container.stored_histories import StoredHistories
from tests.eventually import eventually
from tests.serving import BUCKETS, body_of, promote, serving_environment, store_rows
from tests.training_sets import SilentReport
from train_container.domain.models import load_model
from train_container.domain.training import NeuralFitter
from train_container.settings import TrainSettings

TARGETS, HORIZON, CONNECTIONS, ROUNDS, CHAMPIONS = 11, 60, 32, 5, 16
STEP, ROWS = 120, 6_000
"""Seconds and rows of the data set: two-minute rows, eight days."""


def main(seconds: float) -> None:
    """Measure and print."""
    series = made_series()
    gru, linear = gru_bundle(series), linear_bundle(series)
    with (
        tempfile.TemporaryDirectory() as home,
        server(Path(home), [("gru", gru), ("linear", linear)], series) as (port, _),
    ):
        for steps in (HORIZON, 1):
            rates: dict[str, list[float]] = {"gru": [], "linear": []}
            for _ in range(ROUNDS):
                for name, measured in rates.items():
                    body = body_of(series, identifier=name, inference_length=steps)  # ten rows, as both may get
                    measured.append(rate(port, body, seconds))
            shown = {name: statistics.median(measured) for name, measured in rates.items()}
            ratios = [one / other for one, other in zip(rates["linear"], rates["gru"], strict=True)]
            sys.stdout.write(
                f"{steps} steps of {TARGETS} targets: GRU {shown['gru']:.0f}/s, LINEAR {shown['linear']:.0f}/s, "
                f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})\n"
            )
    many = [(f"set-{number}", linear if number % 2 else gru) for number in range(CHAMPIONS)]
    with tempfile.TemporaryDirectory() as home, server(Path(home), many, series) as (port, process):
        before = megabytes(process)
        for name, _ in many:
            rate(port, body_of(series, slice(0, 0), identifier=name, inference_length=HORIZON), seconds / CHAMPIONS)
        sys.stdout.write(
            f"a replica that has served {CHAMPIONS} champions from their histories: {before:.0f} MB; "
            f"after {seconds:g} s of load, with the forecasts that wait to be logged: {megabytes(process):.0f} MB\n"
        )


def megabytes(process: subprocess.Popen[bytes]) -> float:
    """Return the resident memory of a process."""
    return float(psutil.Process(process.pid).memory_info().rss / 1e6)


def made_series() -> Series:
    """Return days of two-minute rows with a profile of the day and noise."""
    rng = np.random.default_rng(3)
    rows = np.arange(ROWS)[:, None]
    day = 10 + 5 * np.sin(2 * np.pi * rows * STEP / 86_400 + np.arange(TARGETS))
    noise = np.stack([np.convolve(rng.normal(size=ROWS), 0.8 ** np.arange(40))[:ROWS] for _ in range(TARGETS)], axis=1)
    times = 1_700_000_040 + STEP * rows[:, 0]
    return Series(times, tuple(f"c{number}" for number in range(TARGETS)), day + noise, FixedGrid(STEP))


def gru_bundle(series: Series) -> tuple[Bundle, bytes]:
    """Return a GRU of the default size after one epoch; its forecasts cost what those of a longer training do."""
    settings = TrainSettings.model_construct(epochs=1, output_seq_len=1)
    recipe = fit_recipe(as_train(series), RecipeSpec())
    data = dataset.training_set(transform(recipe, series), recipe, settings)
    fitted = NeuralFitter(load_model(trainer_of("GRU")), threads=1).fit(data, settings, SilentReport())
    return make_bundle(fitted, data, Identity("gru", "c" * 64, "GRU", "e" * 64), threads=1, alive=lambda: None)


def linear_bundle(series: Series) -> tuple[Bundle, bytes]:
    """Return LINEAR of the horizon."""
    recipe = fit_recipe(as_train(series), RecipeSpec())
    data = dataset.training_set(transform(recipe, series), recipe, WindowSettings())
    identity = Identity("linear", "c" * 64, "LINEAR", "e" * 64)
    return make_linear(data, identity, horizon=HORIZON, threads=1, alive=lambda: None)


@contextmanager
def server(
    home: Path, champions: list[tuple[str, tuple[Bundle, bytes]]], series: Series
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Yield the port and the process of a server on the first core that serves these champions with histories."""
    port = free_port()
    environment = {**os.environ, **serving_environment(home / "store", home / "cache", SERVICE_PORT=str(port))}
    os.environ.update(environment)
    store = FilesystemStore(home / "store")
    for bucket in BUCKETS:
        store.ensure_bucket(bucket)
    run_store = RunStore(store, FetchSettings.load())
    for name, (bundle, model) in champions:
        store_rows(store, series, identifier=name)
        promote(store, run_store, (replace(bundle, identifier=name), model))
    StoredHistories(store, run_store.pointers, WorkerSettings.load()).tick()
    command = ["taskset", "-c", "0", sys.executable, "-m", "inference_container"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
            for name, _ in champions:
                body = {"identifier": name, "inference_length": 1}

                def served(wanted: dict[str, object] = body) -> bool:
                    try:
                        return http.post("/predict", json=wanted).status_code == 200
                    except httpx.TransportError:
                        return False

                eventually(served, f"{name} is served from its stored rows", timeout=60)
        yield port, process
    finally:
        process.terminate()
        process.wait(30)


def rate(port: int, body: bytes, seconds: float) -> float:
    """Return the answers per second of `CONNECTIONS` connections, each of which waits for its answer."""
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    request = head.encode() + body

    async def connection(until: float) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        done = 0
        while time.perf_counter() < until:
            writer.write(request)
            answered = await reader.readuntil(b"\r\n\r\n")
            if not answered.startswith(b"HTTP/1.1 200"):
                msg = answered.decode() + (await reader.read(2_000)).decode()
                raise RuntimeError(msg)
            length = next(line for line in answered.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(length.split(b":")[1]))
            done += 1
        writer.close()
        return done

    async def together() -> float:
        began = time.perf_counter()
        done = await asyncio.gather(*(connection(began + seconds) for _ in range(CONNECTIONS)))
        return sum(done) / (time.perf_counter() - began)

    return asyncio.run(together())


if __name__ == "__main__":
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 4.0)
