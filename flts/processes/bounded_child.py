"""The child process of `flts.processes.bounded`, which starts ``python -m flts.processes.bounded_child``."""

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
"""A child that still holds this much more than at its start leaves after its answer, so that it is given back."""
ALARM_MARGIN_SECONDS = 5
"""The parent stops a late child; without a parent the alarm does."""
MOST_TRACEBACK = 10_000

Work = Callable[[dict[str, Any], Callable[[str], None]], dict[str, Any]]


def main() -> None:
    """Answer orders from standard input, one line each, until it ends."""
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
    except Exception:  # noqa: BLE001 - the parent raises it again, with this traceback
        return {"bug": traceback.format_exc()[-MOST_TRACEBACK:]}


def _speaker() -> Callable[[dict[str, Any]], None]:
    """Return what writes one line to the parent; a library's own words go to standard error from here on."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        try:
            pipe.write(json.dumps(message).encode() + b"\n")
            pipe.flush()
        except OSError:
            os._exit(1)  # the parent is gone

    return say


def _listen(orders: queue.Queue[dict[str, Any]]) -> None:
    for line in sys.stdin.buffer:
        orders.put(json.loads(line))
    os._exit(0)  # the parent is gone, so the work's result has no reader


def _leave() -> NoReturn:
    """End at once: an orderly end would abort on the lock of the stream that the other thread reads."""
    sys.stderr.flush()
    os._exit(0)


def _limit_memory(more_bytes: int) -> None:
    """Let the process have so much more address space than it has now; Linux keeps to that, macOS does not."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_GO)
    with contextlib.suppress(OSError, ValueError):
        limit = _below_hard_limit(_address_space_bytes() + more_bytes)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _narrow_memory(more_bytes: int | None) -> None:
    """Let the process have so much more than it has now for one order; with None what the hard limit allows."""
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
