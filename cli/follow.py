"""Follow a run live: a table that is redrawn on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.client import GatewayClient, RunEvent
from cli.render import HEADERS_PROGRESS, event_line, progress_rows, run_heading

# Without a terminal: least seconds between two lines of a stage whose state and epoch have not changed.
QUIET_SECONDS = 5.0
STYLES = {"done": "green", "failed": "red", "skipped": "dim", "started": "cyan", "training": "cyan"}


class Display(Protocol):
    """Shows a run while it is in progress."""

    def show(self, event: RunEvent, view: dict[str, Any]) -> None:
        """Show one event; ``view`` is the run after this event."""
        ...

    def note(self, text: str) -> None:
        """Show a message about the connection."""
        ...


def follow_run(
    client: GatewayClient, run_id: str, display: Display, *, timeout_seconds: float | None = None
) -> dict[str, Any]:
    """Show a run until its end and return its last view.

    A run whose preprocessing failed may have no outcome, because a replay can continue it. It is not followed further.

    Raises
    ------
    ApiError, GatewayAwayError
    StillRunningError
        If the run has not ended after ``timeout_seconds``.
    """
    view: dict[str, Any] = {}
    events = client.follow(
        run_id, on_break=lambda reason: display.note(f"{reason}; connecting again"), timeout_seconds=timeout_seconds
    )
    for event in events:
        view = apply_event(view, event)
        display.show(event, view)
        if event.kind != "end" and _is_given_up(view):
            # Preprocess has failed. It writes the stage's record first and the run's outcome next, so the run is read
            # again.
            view = client.run(run_id)
            display.show(RunEvent("end", view), view)
            break
    return view


def _is_given_up(view: dict[str, Any]) -> bool:
    stages = {stage.get("stage"): stage.get("status") for stage in view.get("stages") or ()}
    return stages.get("preprocess") == "failed"


def apply_event(view: dict[str, Any], event: RunEvent) -> dict[str, Any]:
    """Return the run as it is after an event of its stream."""
    if event.kind in {"state", "end"}:
        return event.data
    if event.kind == "progress":
        return {**view, "progress": {**(view.get("progress") or {}), str(event.data.get("stage")): event.data}}
    if event.kind == "stage":
        stages = [stage for stage in view.get("stages") or () if stage.get("stage") != event.data.get("stage")]
        return {**view, "state": "running", "stages": [*stages, event.data]}
    return view


class PlainLines:
    """One line per event, for logs and pipes; repeated progress is printed every `QUIET_SECONDS`."""

    def __init__(self, write: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._last: dict[str, tuple[tuple[object, ...], float]] = {}

    def show(self, event: RunEvent, view: dict[str, Any]) -> None:  # noqa: ARG002 - required by `Display`
        """Write a line for the event."""
        if event.kind == "progress" and not self._is_news(event.data):
            return
        line = event_line(event.kind, event.data)
        if line is not None:
            self._write(line)

    def note(self, text: str) -> None:
        """Write a line."""
        self._write(text)

    def _is_news(self, data: dict[str, Any]) -> bool:
        stage = str(data.get("stage"))
        said, at = self._last.get(stage, ((), 0.0))
        now = self._clock()
        # A new state or epoch is printed at once. If only the batch or the elapsed time has changed, a line is printed
        # at most every QUIET_SECONDS.
        says = (data.get("state"), data.get("epoch"))
        if says == said and now - at < QUIET_SECONDS:
            return False
        self._last[stage] = (says, now)
        return True


class LiveTable:
    """A table on a terminal that changes in place; use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self._view: dict[str, Any] = {}
        self._note = ""
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, event: RunEvent, view: dict[str, Any]) -> None:  # noqa: ARG002 - required by `Display`
        """Show the run as it is now."""
        self._view, self._note = view, ""

    def note(self, text: str) -> None:
        """Show a line below the table."""
        self._note = text

    def _render(self) -> Group:
        now = datetime.now(UTC)
        grid = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for name in HEADERS_PROGRESS:
            grid.add_column(name, justify="right" if name in {"epoch", "loss", "elapsed"} else "left")
        for stage, state, *others in progress_rows(self._view, now=now):
            grid.add_row(stage, Text(state, style=STYLES.get(state.partition(" ")[0], "")), *others)
        heading = Text(run_heading(_with_elapsed(self._view, now)), style="bold") if self._view else Text("waiting")
        parts: list[RenderableType] = [heading, grid]
        if self._note:
            parts.append(Text(self._note, style="yellow"))
        return Group(*parts)


def _with_elapsed(view: dict[str, Any], now: datetime) -> dict[str, Any]:
    if view.get("outcome") or not view.get("created_at"):
        return view
    begun = datetime.fromisoformat(str(view["created_at"]))
    return {**view, "elapsed_seconds": max(0.0, (now - begun).total_seconds())}
