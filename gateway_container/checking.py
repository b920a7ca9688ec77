"""Check uploaded files in a child process with limits on memory and time.

`check_files` does the work; its arguments and its result are plain values. `FileChecks` calls it in a child process
that stays alive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from flts.errors import RejectedError
from flts.ingest.reader import read_table
from flts.ingest.report import validation_report
from flts.ingest.table import RawTable
from flts.observability.logs import get_logger
from flts.processes.bounded import BoundedWorkers, Bounds, GaveUpError
from flts.processes.container import MemoryShares, memory_left_bytes
from flts.recipe_settings import RecipeSettings
from flts.settings import UploadLimits, WindowSettings
from flts.times import TimeFormat
from gateway_container.settings import GatewaySettings

log = get_logger(__name__)

LEFT_TO_GATEWAY_BYTES = 32 * 2**20
"""Bytes of the container's free memory that checks leave to the gateway's other requests."""
LEAST_BYTES = 64 * 2**20
"""Bytes that a check gets in any case. If the container has less, the kernel kills the check, not the gateway."""


class CheckSettings(UploadLimits, RecipeSettings, WindowSettings):
    """The settings of the child process: limits, recipe and windows, and no secret."""


class ChecksFiles(Protocol):
    """Reads uploaded files and reports their content."""

    def check(self, train: Path, test: Path | None, settings: GatewaySettings) -> dict[str, Any]:
        """Return ``{"rows": [train, test or None], "columns", "report"}``, or raise the files' first error."""
        ...


class FileChecks:
    """Checks files in child processes.

    Parameters
    ----------
    settings : GatewaySettings
        Contains the limits of memory and time of one check.
    left : callable
        Returns the container's free bytes, or None if it has no limit. A check gets no more than these. If they are
        less than the limit of one check, the checks run one at a time.
    """

    def __init__(self, settings: GatewaySettings, left: Callable[[], int | None] = memory_left_bytes) -> None:
        self._memory_bytes = settings.validation_memory_bytes
        self._seconds = settings.validation_seconds
        self._shares = MemoryShares(self._memory_bytes, kept=LEFT_TO_GATEWAY_BYTES, least=LEAST_BYTES, left=left)
        self._workers = BoundedWorkers(
            Bounds("gateway_container.checking:check_files", self._memory_bytes, self._seconds)
        )

    def warm_up(self) -> None:
        """Start a child process, so that the first upload does not wait for its imports."""
        self._workers.warm_up()

    def close(self) -> None:
        """End the child processes."""
        self._workers.close()

    def check(self, train: Path, test: Path | None, settings: GatewaySettings) -> dict[str, Any]:
        """Read the files in a child process.

        Raises
        ------
        RejectedError
            The error of `check_files`. With ``field`` ``train`` or ``test``: ``too_large`` if the file needs more
            memory or time than a check may use, ``unreadable`` if the child process crashed.
        """
        with self._shares.share() as share:
            try:
                return self._workers.ask(order_of(train, test, settings), memory_bytes=share)
            except GaveUpError as error:
                log.warning("validation_gave_up", cause=error.cause, file=error.noted, error=error)
                raise self._refusal(error, share) from error

    def _refusal(self, error: GaveUpError, share: int | None) -> RejectedError:
        file = error.noted or "train"
        if error.cause == "memory" and share is not None and share < self._memory_bytes:
            msg = (
                f"{file}: checking it needs more than {share:,} bytes of memory, which is what the gateway's container "
                "can spare: send fewer rows or columns, or raise the container's limit"
            )
        elif error.cause == "memory":
            msg = (
                f"{file}: checking it needs more than {self._memory_bytes:,} bytes of memory "
                "(VALIDATION_MEMORY_BYTES): send fewer rows or columns"
            )
        elif error.cause == "time":
            msg = f"{file}: checking it takes longer than {self._seconds:g} s (VALIDATION_SECONDS): send fewer rows"
        else:
            msg = f"{file}: the process that read it crashed; it is no file that can be read"
            return RejectedError(msg, code="unreadable", field=file)
        return RejectedError(msg, code="too_large", field=file)


def order_of(train: Path, test: Path | None, settings: GatewaySettings) -> dict[str, Any]:
    """Return the argument of `check_files`; it contains only the settings that `check_files` reads."""
    return {
        "train": str(train),
        "test": None if test is None else str(test),
        "settings": settings.model_dump(mode="json", include=set(CheckSettings.model_fields)),
    }


def check_files(order: Mapping[str, Any], note: Callable[[str], None]) -> dict[str, Any]:
    """Read both files and report their content; runs in the child process.

    Raises
    ------
    RejectedError
        If training is impossible; the message names the column, setting or file, and the number of rows needed.
    """
    settings = CheckSettings(**order["settings"])

    def read(name: str, like: TimeFormat | None = None) -> RawTable:
        note(name)
        path = Path(order[name])
        return read_table(path, limits=settings, settings=settings, like=like, name=name, scratch=path.parent)

    train = read("train")
    test = read("test", train.time_format) if order["test"] is not None else None
    report = validation_report(train, test, settings, settings).as_dict()
    rows = [train.rows, None if test is None else test.rows]
    return {"rows": rows, "columns": len(train.columns), "report": report}
