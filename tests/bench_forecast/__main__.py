"""Measure FLTS and the peers: ``python -m tests.bench_forecast [--sets SET,...] [--fast] [--seeds 3] [--write]``."""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import flts
from flts.errors import RejectedError
from flts.trainers import TRAINERS, Trainer
from tests.bench_forecast import peer_runs, product
from tests.bench_forecast.measures import Forecasts, Measures, measures
from tests.bench_forecast.report import FLTS, SetReport, text_of, worse_than_baselines, write_between_markers
from tests.bench_forecast.sets import SHIPPED, Source, chosen, generated
from tests.in_process import CLOSED_FORM

PAGE = Path(__file__).resolve().parents[2] / "docs" / "quality.md"
ENABLED = tuple(trainer for trainer in TRAINERS if trainer.enabled)
FAST_SETS = ("hourly", "business-days", "monthly", "intermittent", "walk")


def main() -> int:
    """Measure the sets, print or write the tables, and return 1 if a served model is worse than a baseline."""
    asked = _arguments()
    names = asked.sets or (FAST_SETS if asked.fast else (*(one.name for one in generated()), *SHIPPED))
    trainers = CLOSED_FORM if asked.fast else ENABLED
    reports = []
    # A child process checks each bundle before it is announced. It takes seconds and changes no forecast.
    with patch("flts.bundle.proof.prove"):
        for source in chosen(names, peer_runs.shipped, asked.horizon):
            sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {source.name}\n")
            try:
                reports.append(_measured(source, trainers, 1 if asked.fast else asked.seeds, peers=not asked.fast))
            except RejectedError as error:
                msg = f"{source.name} is refused: {error.message}"
                raise SystemExit(msg) from error
    text = text_of(reports, _heading(asked, peers=not asked.fast))
    if asked.write:
        write_between_markers(PAGE, text)
    else:
        sys.stdout.write(f"{text}\n")
    worse = worse_than_baselines(reports)
    if worse:
        sys.stderr.write(f"more than 2 % worse than the best baseline: {', '.join(worse)}\n")
    return 1 if worse else 0


def _measured(source: Source, trainers: tuple[Trainer, ...], seeds: int, *, peers: bool) -> SetReport:
    """Measure a set with each seed; closed forms on rows that no seed changes are measured once."""
    found: dict[str, list[Measures]] = {}
    served, errors, others = [], {}, {}
    if not source.seeded and trainers == CLOSED_FORM:
        seeds = 1
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            data = source.make(seed)
            outcome = product.run(Path(folder) / "product", data, trainers, seed)
            if peers and (source.seeded or not others):
                others, errors = peer_runs.forecasts(outcome.task, Path(folder) / "peers", seed)
        own = outcome.forecasts[outcome.served]
        every = {
            FLTS: Forecasts(own.mean, own.lower, own.upper, outcome.cpu_seconds),
            **outcome.forecasts,
            **others,
        }
        for name, each in measures(outcome.truth, every).items():
            found.setdefault(name, []).append(each)
        served.append(outcome.served)
    task = outcome.task
    return SetReport(
        source.name,
        rows=len(task.series),
        columns=len(task.series.columns),
        blocks=outcome.truth.blocks,
        origins=len(task.origins),
        served=tuple(served),
        measures={name: tuple(each) for name, each in found.items()},
        baselines=outcome.truth.baselines,
        peers=tuple(others),
        errors=errors,
    )


def _heading(asked: argparse.Namespace, *, peers: bool) -> str:
    options = [
        f"SETS={','.join(asked.sets)}{' WRITE=1' if asked.write else ''}" if asked.sets else "",
        f"SEEDS={asked.seeds}" if not asked.fast else "FAST=1",
        f"HORIZON={asked.horizon}" if asked.horizon else "",
    ]
    packages = ", ".join(f"{name} {version}" for name, version in peer_runs.versions().items()) if peers else "no peers"
    command = " ".join(["make bench-forecast", *filter(None, options)])
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} by `{command}`: FLTS {flts.__version__}, {packages}, Python "
        f"{platform.python_version()}, one thread each."
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench_forecast", description=__doc__)
    parser.add_argument("--sets", type=_names, help="sets, CSV files or TOML files, separated by commas; default: all")
    parser.add_argument("--fast", action="store_true", help="only the baselines and LINEAR, one seed, no peers")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each set")
    parser.add_argument("--horizon", type=int, help="steps, for every set")
    parser.add_argument("--write", action="store_true", help=f"write the tables into {PAGE.name}")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
