"""The child process of `flts.processes.bounded`, started as ``python -m flts.processes.bounded_child``."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import queue
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from flts.errors import FltsError
from flts.observability.process import rss_bytes

FIRST_TO_GO = "1000"  # oom_score_adj: at the container's memory limit the kernel kills this process and not the service
RETIRE_BYTES = 256 * 2**20
"""Bytes; a child that holds this much more memory than at its start ends after its answer, which frees the memory."""
ALARM_MARGIN_SECONDS = 5
"""Seconds; the parent kills a late child, and without a parent SIGALRM ends it this much later."""
MOST_TRACEBACK = 10_000

Work = Callable[[dict[str, Any], Callable[[str], None]], dict[str, Any]]


def main() -> None:
    """Process orders from standard input, one per line, until the parent closes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    say = _speaker()
    module, _, name = sys.argv[1].partition(":")
    work: Work = getattr(importlib.import_module(module), name)
    orders: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(orders,), name="lifeline", daemon=True).start()
    _limit_memory(int(sys.argv[2]))
    grown = rss_bytes() + RETIRE_BYTES
    idle = None if math.isinf(float(sys.argv[3])) else float(sys.argv[3])
    say({"ready": {}})
    while True:
        try:
            order = orders.get(timeout=idle)
        except queue.Empty:
            _leave()
        say({"taken": {}})
        _narrow_memory(order["memory_bytes"])
        signal.alarm(int(order["seconds"]) + ALARM_MARGIN_SECONDS)
        answer = _answer(work, order["order"], lambda text: say({"note": text}))
        signal.alarm(0)
        retires = "memory" in answer or "bug" in answer or rss_bytes() > grown
        say({"answer": {**answer, "retires": retires}})
        if retires:
            _leave()


def _answer(work: Work, order: dict[str, Any], note: Callable[[str], None]) -> dict[str, Any]:
    try:
        return {"result": work(order, note)}
    except FltsError as error:
        return {"error": error.to_dict()}
    except MemoryError as error:
        return {"memory": repr(error)[:200]}
    except Exception:  # noqa: BLE001 - the parent raises the error again, with this traceback
        return {"bug": traceback.format_exc()[-MOST_TRACEBACK:]}


def _speaker() -> Callable[[dict[str, Any]], None]:
    """Return a function that writes one line to the parent, and redirect standard output to standard error."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        try:
            pipe.write(json.dumps(message).encode() + b"\n")
            pipe.flush()
        except OSError:
            os._exit(1)  # the parent has ended

    return say


def _listen(orders: queue.Queue[dict[str, Any]]) -> None:
    for line in sys.stdin.buffer:
        orders.put(json.loads(line))
    os._exit(0)  # the parent has closed the pipe, so no process reads the result


def _leave() -> NoReturn:
    """End at once: a normal exit would abort, because the thread `_listen` holds the lock of standard input."""
    sys.stderr.flush()
    os._exit(0)


def _limit_memory(more_bytes: int) -> None:
    """Limit the address space to its present size plus ``more_bytes``; Linux enforces the limit, macOS does not."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_GO)
    with contextlib.suppress(OSError, ValueError):
        limit = _below_hard_limit(_address_space_bytes() + more_bytes)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _narrow_memory(more_bytes: int | None) -> None:
    """Lower the soft limit of the address space for one order; None restores the hard limit."""
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = hard if more_bytes is None else _below_hard_limit(_address_space_bytes() + more_bytes)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _address_space_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _below_hard_limit(limit: int) -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    return limit if hard == resource.RLIM_INFINITY else min(limit, hard)


if __name__ == "__main__":
    main()
