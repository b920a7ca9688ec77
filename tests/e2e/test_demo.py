"""`python -m embedded demo`: its output, its exit codes, its second start, and its end by a signal."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flts.trainers import COMBINATION, DEFAULT_MODEL_TYPES
from tests.eventually import eventually
from tests.stack import PORTS, ROOT, SMALL

pytestmark = pytest.mark.timeout(400)


def demo(home: Path, **environment: str) -> subprocess.Popen[str]:
    variables = {**os.environ, **dict.fromkeys(PORTS, "0"), "FLTS_HOME": str(home), **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "embedded", "demo"],
        cwd=ROOT,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], seconds: float) -> tuple[str, str]:
    """Wait for the end of the process and return its output and errors; after `seconds`, terminate it and fail."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        output, errors = process.communicate(timeout=60)
        msg = f"not ended within {seconds:g} s:\n{output}\n{errors}"
        raise AssertionError(msg) from None


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "home"


@pytest.fixture(scope="module")
def first(home: Path) -> subprocess.CompletedProcess[str]:
    process = demo(home, ONCE="1")
    output, errors = ended(process, 300)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def test_the_demo_ends_with_a_served_forecast_of_a_promoted_model(
    first: subprocess.CompletedProcess[str], home: Path
) -> None:
    assert first.returncode == 0, first.stdout + first.stderr
    assert re.search(rf"promoted: ({'|'.join((*DEFAULT_MODEL_TYPES, COMBINATION))})", first.stdout), first.stdout
    plot = home / "forecast-sample.png"
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert str(plot) in first.stdout
    assert "/docs" in first.stdout
    assert "MLflow" in first.stdout
    assert re.search(r"peak memory", first.stdout), first.stdout
    assert re.search(r"a provisional forecast is served after [\d.]+ s: \w+", first.stdout), first.stdout
    explained = re.search(r"first served forecast ([\d.]+) s, of which the stages explain (\d+)%", first.stdout)
    assert explained, first.stdout
    seconds, share = float(explained[1]), int(explained[2]) / 100
    assert 0.5 < share <= 1
    assert seconds * (1 - share) < 20, "the rest is fetching and loading the champion"


def test_progress_is_told_in_plain_lines_where_there_is_no_terminal(first: subprocess.CompletedProcess[str]) -> None:
    assert re.search(r"train-gru.*epoch +\d+/\d+.*loss", first.stdout), first.stdout
    assert "\x1b" not in first.stdout


def test_a_second_start_finds_the_data_of_the_first(home: Path, first: subprocess.CompletedProcess[str]) -> None:
    assert first.returncode == 0
    runs = sorted((home / "store" / "pipeline-runs" / "sample").iterdir())

    process = demo(home, ONCE="1")
    output, errors = ended(process, 300)

    assert process.returncode == 0, output + errors
    assert sorted((home / "store" / "pipeline-runs" / "sample").iterdir()) == runs


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_was_cut_off_goes_on_at_the_next_start_and_nothing_is_left_behind(
    tmp_path: Path, number: signal.Signals
) -> None:
    home = tmp_path / "home"
    process = demo(home, **SMALL)
    stages = home / "store" / "pipeline-runs" / "sample"
    eventually(lambda: list(stages.glob("*/stages/train-gru.json")), "training began", timeout=150)
    family = psutil.Process(process.pid).children(recursive=True)

    process.send_signal(number)
    ended(process, 60)

    assert process.returncode != 0, "no forecast was served"
    assert not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert not list(stages.glob("*/decision.json"))
    if number is signal.SIGINT:
        return  # only the case of SIGTERM starts the demo again, to save time

    again = demo(home, ONCE="1", **SMALL)
    output, errors = ended(again, 200)
    assert again.returncode == 0, output + errors
    assert len(list(stages.iterdir())) == 1, "the run went on; no second one was made"


def test_a_taken_port_is_said_by_name(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = demo(tmp_path / "home", ONCE="1", GATEWAY_PORT=str(port))
        _, errors = ended(process, 60)

    assert process.returncode == 1
    assert f"port {port} (GATEWAY_PORT) is taken" in errors
    assert len(errors.strip().splitlines()) == 1


def test_a_wrong_setting_is_said_at_once_in_one_line(tmp_path: Path) -> None:
    process = demo(tmp_path / "home", ONCE="1", EPOCHS="many")
    _, errors = ended(process, 60)

    assert process.returncode == 1
    assert "EPOCHS" in errors
    assert len(errors.strip().splitlines()) == 1, errors
