"""The table that the command line updates in place on a terminal."""

from __future__ import annotations

import io
import re

from rich.console import Console

from cli.client import RunEvent
from cli.follow import LiveTable, apply_event
from tests.eventually import eventually


def test_a_terminal_shows_stage_epoch_loss_and_elapsed() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None, _environ={"TERM": "xterm"})
    state = RunEvent(
        "state",
        {
            "pipeline_run_id": "r",
            "identifier": "x",
            "state": "running",
            "created_at": "2024-01-01T00:00:00Z",
            "stages": [
                {"stage": "preprocess", "status": "done", "start": "2024-01-01T00:00:00Z", "end": "x", "seconds": 1.5}
            ],
        },
    )
    progress = RunEvent("progress", {"stage": "train-gru", "state": "training", "epoch": 3, "epochs": 10, "loss": 0.5})
    end = RunEvent("end", {"pipeline_run_id": "r", "identifier": "x", "outcome": "promoted", "elapsed_seconds": 12.0})

    with LiveTable(console) as display:
        view = apply_event({}, state)
        display.show(state, view)
        view = apply_event(view, progress)
        display.show(progress, view)
        display.note("connecting again")
        eventually(lambda: "connecting again" in out.getvalue(), "the note")
        display.show(end, apply_event(view, end))

    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert re.search(r"preprocess +done +1\.5 s", shown)
    assert re.search(r"train-gru +training +3/10 +0\.5", shown)
    assert "run r on x: promoted, 12.0 s" in shown
