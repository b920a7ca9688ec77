"""The code of the child process of `flts.bundle.proof`: it loads a bundle and runs a full batch in limited memory."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

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
        try:
            model.run(model.probe_batch(model.signature.batch_rows))
        except MemoryError:
            raise
        except Exception as error:  # ONNX Runtime's errors share no base class
            msg = f"the model does not run a full batch: {error}"
            raise RejectedError(msg[:500], code="bad_bundle") from error
    return {}


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
