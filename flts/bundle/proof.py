"""Load and run a bundle in a child process with bounded memory and time, before a service loads it.

A hash shows that the bytes are the promised ones, not that they are harmless. A model of a few kilobytes can request
any amount of memory or time from ONNX Runtime, when a session is built or when it runs, or make it crash. A service
that did not make a bundle therefore proves it here first. The same bytes then behave the same in the service's own
process. The child runs `flts.bundle.proving`. This module does not import ONNX Runtime, so the parent stays small.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from flts.bundle import BUNDLE_FILE, MODEL_FILE
from flts.bundle.format import MAX_BATCH, Bundle
from flts.errors import RejectedError
from flts.processes.bounded import BoundedWorkers, Bounds, GaveUpError

PROOF_SECONDS = 45.0
"""A full batch takes milliseconds, of the largest models seconds. Well below FETCH_TIMEOUT_SECONDS, since a replica's
fetching child that is silent for so long is stopped, and then nobody would learn which bundle it was."""
MEMORY_BYTES = 2**30
"""Layers of 512 units over full batches of a hundred rows need 200 MB."""
MODEL_COPIES, INPUT_COPIES = 8, 16
"""Factor: a session holds several copies of its file, and a run several copies of its inputs."""
MOST_BYTES = 8 * 2**30
IDLE_SECONDS = 300.0

_BOUNDS = Bounds("flts.bundle.proving:prove_folder", MOST_BYTES, PROOF_SECONDS, idle_seconds=IDLE_SECONDS)
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


def _workers() -> BoundedWorkers:
    global _shared  # noqa: PLW0603 - one child for all of a process, ended with it
    with _lock:
        if _shared is None:
            _shared = BoundedWorkers(_BOUNDS)
        return _shared
