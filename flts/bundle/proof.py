"""Load and run a bundle in a child process with bounded memory and time, before a service loads it.

A hash shows that the bytes are unchanged, not that they are harmless. A model of a few kilobytes can request any amount
of memory or time from ONNX Runtime, when a session is built or when it runs, or make it crash. So a service proves a
bundle from the store in a child process first. The same bytes then behave the same in the service's own process. The
child process runs `flts.bundle.proving`. This module does not import ONNX Runtime, so the parent needs little memory.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from flts.bundle import BUNDLE_FILE, MODEL_FILE
from flts.bundle.format import Bundle
from flts.bundle.tensors import signature_of
from flts.errors import RejectedError
from flts.processes.bounded import BoundedWorkers, Bounds, GaveUpError

PROOF_SECONDS = 45.0
"""A full batch needs milliseconds, or seconds for the largest models. It must be well below FETCH_TIMEOUT_SECONDS: a
replica stops its fetching child process after that time, and the log would not name the bundle."""
MEMORY_BYTES = 2**30
"""Base limit; layers of 512 units with full batches of 100 rows need 200 MB."""
MODEL_COPIES, BATCH_COPIES = 8, 16
"""Factors; a session keeps several copies of its file, and a run several copies of its inputs and its answer."""
MOST_BYTES = 8 * 2**30
IDLE_SECONDS = 300.0

_BOUNDS = Bounds("flts.bundle.proving:prove_folder", MOST_BYTES, PROOF_SECONDS, idle_seconds=IDLE_SECONDS)
_lock = threading.Lock()
_shared: BoundedWorkers | None = None


def warm_up() -> None:
    """Start the child process in the background, so that the next proof does not wait for imports."""
    _workers().warm_up()


def prove(bundle: Bundle, model_bytes: bytes) -> None:
    """Load the model, check its probe and run a full batch in a child process with bounded memory and time.

    Raises
    ------
    HashMismatchError, RejectedError
        As `BundleModel`; ``bad_bundle`` if the child process exceeded a limit or crashed, with the cause.
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
    """Return the memory limit for loading and running the model of a bundle, in bytes."""
    signature = signature_of(bundle)
    batch = signature.batch_rows * signature.row_bytes
    allowed = MEMORY_BYTES + MODEL_COPIES * bundle.model_size + BATCH_COPIES * batch
    return min(allowed, MOST_BYTES)


def _workers() -> BoundedWorkers:
    global _shared  # noqa: PLW0603 - one child process, used by the whole process and ended with it
    with _lock:
        if _shared is None:
            _shared = BoundedWorkers(_BOUNDS)
        return _shared
