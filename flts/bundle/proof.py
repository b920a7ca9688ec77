"""Prove a bundle in a child of bounded memory and time, before a process that must live on loads it.

Hashes say that the bytes are the promised ones, not that they are harmless: a few kilobytes of plain arithmetic can ask
a runtime for any amount of memory or time, while it builds a session as well as while it runs one, or make it crash.
Whoever loads a stranger's bundle has it proved here first; then the same bytes do the same in the process itself.
"""

from __future__ import annotations

import contextlib
import os
import resource
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flts.bundle.format import BUNDLE_FILE, MODEL_FILE, Bundle
from flts.bundle.load import read_bundle_folder
from flts.bundle.model import MAX_BATCH, BundleModel
from flts.errors import RejectedError
from flts.runtime.bounded import BoundedWorkers, Bounds, GaveUpError

PROOF_SECONDS = 120.0
"""A full batch of a model of the largest size takes 10 on a busy core."""
MEMORY_BYTES = 2**30
"""Layers of 512 units over full batches of a hundred rows need 200 MB."""
MODEL_COPIES, INPUT_COPIES = 8, 16
"""What a session holds of its file, and a run of its inputs, several times over."""
MOST_BYTES = 8 * 2**30
IDLE_SECONDS = 300.0

_BOUNDS = Bounds("flts.bundle.proof:prove_folder", MOST_BYTES, PROOF_SECONDS, idle_seconds=IDLE_SECONDS)
_lock = threading.Lock()
_shared: BoundedWorkers | None = None


def warm_up() -> None:
    """Start the child in the background, so that the next proof does not wait for its imports."""
    _workers().warm_up()


def prove(bundle: Bundle, model_bytes: bytes) -> None:
    """Have a child load the model, answer the probe and run a full batch, in bounded memory and time.

    Raises
    ------
    HashMismatchError, RejectedError
        What `BundleModel` raises; ``bad_bundle`` if the child did not live through it, naming what it lacked.
    """
    with tempfile.TemporaryDirectory(prefix="flts-proof-") as name:
        folder = Path(name)
        (folder / BUNDLE_FILE).write_bytes(bundle.to_json())
        (folder / MODEL_FILE).write_bytes(model_bytes)
        try:
            _workers().ask({"folder": name, "memory_bytes": memory_bytes(bundle)})
        except GaveUpError as error:
            reasons = {
                "memory": f"needs more than {memory_bytes(bundle):,} bytes of memory",
                "time": f"takes longer than {PROOF_SECONDS:g} s",
                "crash": "crashes the runtime",
            }
            msg = f"the model {reasons[error.cause]} to load and run a full batch: it is not loaded"
            raise RejectedError(msg, code="bad_bundle") from error


def memory_bytes(bundle: Bundle) -> int:
    """Return what loading and running a bundle's model may take."""
    row_cells = bundle.input_seq_len * len(bundle.recipe.feature_names) if bundle.input_kind == "window" else 1
    allowed = MEMORY_BYTES + MODEL_COPIES * bundle.model_size + INPUT_COPIES * 4 * MAX_BATCH * row_cells
    return min(allowed, MOST_BYTES)


def prove_folder(order: Mapping[str, Any], note: Callable[[str], None]) -> dict[str, Any]:
    """Load the bundle in a folder and run a full batch; runs in the child."""
    bundle, model_bytes = read_bundle_folder(Path(order["folder"]))
    with _memory_limited(int(order["memory_bytes"])):
        note("loading the model")
        model = BundleModel(bundle, model_bytes)
        note("running a full batch")
        inputs = bundle.probe["inputs"]
        repeated = [inputs[at % len(inputs)] for at in range(MAX_BATCH)]
        try:
            if bundle.input_kind == "window":
                model.run_windows(np.asarray(repeated, dtype=np.float32))
            else:
                model.run_timestamps(np.asarray(repeated, dtype=np.int64))
        except MemoryError:
            raise
        except Exception as error:  # ONNX Runtime's errors share no base class
            msg = f"the model does not run a full batch: {error}"
            raise RejectedError(msg[:500], code="bad_bundle") from error
    return {}


@contextlib.contextmanager
def _memory_limited(more_bytes: int) -> Iterator[None]:
    """Let this process have so much more than now; where the system does not say how much that is, nothing changes."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + more_bytes
        if before[1] != resource.RLIM_INFINITY:
            limit = min(limit, before[1])
        resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _workers() -> BoundedWorkers:
    global _shared  # noqa: PLW0603 - one child for all of a process, ended with it
    with _lock:
        if _shared is None:
            _shared = BoundedWorkers(_BOUNDS)
        return _shared
