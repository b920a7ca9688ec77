"""The code of the child process of `flts.bundle.proof`: it loads a bundle and runs a full batch in limited memory."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flts.bundle.format import MAX_BATCH
from flts.bundle.load import read_bundle_folder
from flts.bundle.model import BundleModel
from flts.errors import RejectedError


def prove_folder(order: Mapping[str, Any], note: Callable[[str], None]) -> dict[str, Any]:
    """Load the bundle in a folder and run a full batch; called in the child process."""
    bundle, model_bytes = read_bundle_folder(Path(order["folder"]))
    with _memory_limited(int(order["memory_bytes"])):
        note("loading the model")
        model = BundleModel(bundle, model_bytes)
        note("running a full batch")
        inputs = bundle.probe["inputs"]
        try:
            if bundle.input_kind == "window":
                model.run_windows(_full_batch(np.asarray(inputs, dtype=np.float32)))
            else:
                model.run_timestamps(_full_batch(np.asarray(inputs, dtype=np.int64)))
        except MemoryError:
            raise
        except Exception as error:  # ONNX Runtime's errors share no base class
            msg = f"the model does not run a full batch: {error}"
            raise RejectedError(msg[:500], code="bad_bundle") from error
    return {}


def _full_batch(inputs: NDArray[Any]) -> NDArray[Any]:
    return np.resize(inputs, (MAX_BATCH, *inputs.shape[1:]))


@contextlib.contextmanager
def _memory_limited(more_bytes: int) -> Iterator[None]:
    """Limit the address space of this process to ``more_bytes`` more than now, if /proc shows its size."""
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
