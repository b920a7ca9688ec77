"""Work for bounded child processes that fails in every way."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flts.errors import ConflictError

KEPT: list[bytes] = []


def misbehave(order: dict[str, Any], note: Callable[[str], None]) -> dict[str, Any]:  # noqa: C901 - a case per order
    note(f"doing {order['do']}")
    match order["do"]:
        case "answer":
            sys.stdout.write("a library's own words\n")
            return {"pid": os.getpid(), "echo": order.get("echo")}
        case "refuse":
            msg = "not so"
            raise ConflictError(msg, code="mine", field="that")
        case "bug":
            return {"never": 1 // 0}
        case "fill":
            # The expression b"x" * size writes to every memory page, so the child uses the memory.
            return {"size": len(b"x" * order["size"])}
        case "keep":
            KEPT.append(b"x" * order["size"])
        case "hang":
            time.sleep(600)
        case "wait":
            Path(order["begun"]).touch()
            while not Path(order["until"]).exists():
                time.sleep(0.01)
        case "crash":
            ctypes.string_at(0)
        case "abort":
            os.write(2, order["words"].encode())
            os.abort()
        case "exit":
            os._exit(3)
    return {}
