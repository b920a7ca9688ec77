"""Run the peers in an environment of their own, because statsforecast needs another pandas than the product."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.bench_forecast.measures import Forecasts
from tests.bench_forecast.product import Task

HERE = Path(__file__).resolve().parent / "peers"
HOME = Path(__file__).resolve().parents[2] / ".bench"
REQUIREMENTS = HERE / "requirements.txt"
VERSIONS = ("statsforecast", "lightgbm", "statsmodels")
"""Packages whose versions the report names."""


def python() -> Path:
    """Return the interpreter of the peers' environment, which is created if it is missing or has other versions."""
    venv, stamp = HOME / "venv", HOME / "venv" / "installed"
    fingerprint = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    found = venv / "bin" / "python"
    if stamp.exists() and stamp.read_text() == fingerprint:
        return found
    sys.stderr.write(f"Installing statsforecast and LightGBM into {HOME.name}/venv (once) ...\n")
    shutil.rmtree(venv, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip = [found, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--requirement", REQUIREMENTS], check=True)
    stamp.write_text(fingerprint)
    return found


def versions() -> Mapping[str, str]:
    """Return the pinned versions of the packages that the report names."""
    pins = dict(line.split("==") for line in REQUIREMENTS.read_text().splitlines() if "==" in line)
    return {name: pins[name] for name in VERSIONS}


def shipped() -> Path:
    """Return the folder with the series that the peers' packages ship."""
    interpreter, folder = python(), HOME / "venv" / "shipped"
    if not folder.exists():
        part = folder.with_suffix(".part")
        subprocess.run([interpreter, HERE / "shipped.py", part], check=True)
        part.rename(folder)
    return folder


def forecasts(task: Task, folder: Path, seed: int) -> tuple[dict[str, Forecasts], dict[str, str]]:
    """Return the forecasts of the peers, and the errors of those that cannot forecast these rows."""
    folder.mkdir(parents=True)
    np.savez(
        folder / "task.npz",
        values=task.series.values,
        times=task.series.times,
        origins=task.origins,
        train_rows=task.train_rows,
        horizon=task.horizon,
        seasons=np.array(task.seasons, dtype=np.int64),
        seed=seed,
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([python(), HERE / "forecast.py", folder], check=True, env=environment)
    made = {path.stem: dict(np.load(path)) for path in sorted(folder.glob("*.npz")) if path.stem != "task"}
    errors = {path.stem: path.read_text() for path in sorted(folder.glob("*.txt"))}
    return {
        name: Forecasts(found["mean"], found.get("lower"), found.get("upper"), cpu_seconds=float(found["cpu_seconds"]))
        for name, found in made.items()
    }, errors
