"""Train a data set with several seeds in the running pipeline, and compare the models with the baselines.

``python -m tools.seeds TRAIN.csv [TEST.csv] [--target down] [--seeds 1,2,3] [--name seeds]``, while `make embedded`
runs. It prints the scaled error one step ahead on the test rows, a row per seed and model, and the means against Ridge.
The exit code is 1 unless the means of GRU and LSTM are below Ridge in MAE and at most 1 % above it in RMSE.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from cli.client import GatewayClient
from cli.settings import CliSettings
from cli.text import table

STEP = 1
NEURAL = ("GRU", "LSTM")
MOST_RMSE = 1.01


def main() -> int:
    """Upload once per seed, wait for each decision, print the table; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.seeds")
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path, nargs="?")
    parser.add_argument("--target", default="down")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--name", default="seeds")
    arguments = parser.parse_args()
    settings = CliSettings.load()
    errors: dict[str, list[tuple[float, float]]] = {}
    rows = []
    with GatewayClient(settings.url(), settings.api_key()) as client:
        for seed in arguments.seeds.split(","):
            answer = client.upload(arguments.name, arguments.train, arguments.test, settings={"SEED": int(seed)})
            for _ in client.follow(answer["pipeline_run_id"]):
                pass
            board = client.run(answer["pipeline_run_id"])["scoreboard"]
            for name, found in _errors(board, arguments.target).items():
                errors.setdefault(name, []).append(found)
                rows.append((seed, name, f"{found[0]:.5f}", f"{found[1]:.5f}"))
    for line in table(("seed", "model", "RMSE", "MAE"), rows, right=("RMSE", "MAE")):
        print(line)
    ridge = _mean(errors["ridge"])
    print(f"\nmeans on {arguments.target}, {STEP} step ahead, against Ridge")
    missed = []
    for name, found in sorted(errors.items()):
        rmse, mae = _mean(found)
        print(f"{name:15} RMSE {rmse:.5f} ({rmse / ridge[0] - 1:+.2%})  MAE {mae:.5f} ({mae / ridge[1] - 1:+.2%})")
        if name in NEURAL and (mae >= ridge[1] or rmse > MOST_RMSE * ridge[0]):
            missed.append(name)
    if missed:
        print(f"{' and '.join(missed)}: no better than Ridge")
    return 1 if missed else 0


def _errors(board: dict[str, Any], target: str) -> dict[str, tuple[float, float]]:
    found = {}
    for row in [*board["candidates"], *board["references"]]:
        for entry in row.get("table") or ():
            if entry["target"] == target and entry["step"] == STEP:
                found[row.get("model_type") or row["name"]] = (entry["rmse"], entry["mae"])
    return found


def _mean(errors: list[tuple[float, float]]) -> tuple[float, float]:
    return statistics.mean(rmse for rmse, _ in errors), statistics.mean(mae for _, mae in errors)


if __name__ == "__main__":
    raise SystemExit(main())
