"""The model of a bundle, checked and ready to run: by default in one thread, without busy waiting."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any, NoReturn

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from flts.bundle.arrays import read_arrays
from flts.bundle.format import MAX_MODEL_BYTES, Bundle
from flts.bundle.graph import check_graph
from flts.bundle.tensors import OUTPUT, SECONDS_INPUT, NumberType, Tensor, signature_of
from flts.errors import HashMismatchError, RejectedError
from flts.forecasting.rolling import WINDOW_INPUT, Inputs

__all__ = [
    "OUTPUT",
    "PROBE_TOLERANCE",
    "SECONDS_INPUT",
    "WINDOW_INPUT",
    "BundleModel",
    "check_model_bytes",
    "relative_difference",
]

PROBE_TOLERANCE = 1e-4
"""Largest relative difference from the trainer's answer; between machines the difference is below 1e-6."""
_TYPES: dict[NumberType, str] = {"float32": "tensor(float)", "float64": "tensor(double)", "int64": "tensor(int64)"}
_OUTPUTS = [OUTPUT]


class BundleModel:
    """An ONNX Runtime session that passed the bundle's probe; several threads can call it.

    Parameters
    ----------
    bundle : Bundle
    model_bytes : bytes
        The ONNX file; its size and hash must be those in the bundle.
    threads : int
        Threads of one call. More than one thread is slower while other work uses the cores.

    Raises
    ------
    HashMismatchError
        If the size or hash of the bytes differs from the bundle.
    RejectedError
        ``bad_bundle`` if `check_graph` refuses the model, if it does not load, if its inputs or outputs differ from
        the bundle, if the arrays of the bundle in the file are not those that it says, or if the answer to the probe
        differs.
    """

    def __init__(self, bundle: Bundle, model_bytes: bytes, *, threads: int = 1) -> None:
        self.signature = signature_of(bundle)
        check_model_bytes(bundle, model_bytes)
        self.bundle, self.probe = read_arrays(bundle, self.signature, check_graph(model_bytes))
        """The bundle, its intervals with the quantiles of the model file."""
        self._session = _session(model_bytes, threads)
        self._check_signature()
        self._check_probe()

    def run(self, inputs: Inputs) -> NDArray[np.float64]:
        """Forecast from the model's inputs, in calls of at most ``signature.batch_rows`` rows.

        Parameters
        ----------
        inputs : name -> array
            The inputs of `signature_of`, all with the same first dimension b.

        Returns
        -------
        (b, H, m) or (b, m) float64
            Scaled varying targets.
        """
        rows = len(next(iter(inputs.values())))
        most = self.signature.batch_rows
        if 0 < rows <= most:
            return np.asarray(self._session.run(_OUTPUTS, inputs)[0], dtype=np.float64)
        parts = [
            np.asarray(
                self._session.run(_OUTPUTS, {name: given[at : at + most] for name, given in inputs.items()})[0],
                dtype=np.float64,
            )
            for at in range(0, rows, most)
        ]
        return np.concatenate(parts) if parts else np.empty((0, *self.signature.output.shape))

    def probe_batch(self, rows: int) -> Inputs:
        """Return the inputs of the probe, repeated to a batch of ``rows``."""
        return {name: np.resize(given, (rows, *given.shape[1:])) for name, given in self.probe.inputs.items()}

    def run_windows(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Forecast from windows.

        Parameters
        ----------
        inputs : (b, L, f) float32
            Scaled features.

        Returns
        -------
        (b, H, m) float64
            Scaled varying targets.
        """
        return self.run({WINDOW_INPUT: inputs})

    def run_timestamps(self, seconds: NDArray[np.int64]) -> NDArray[np.float64]:
        """Forecast at times.

        Parameters
        ----------
        seconds : (n,) int64
            Epoch seconds, in any order.

        Returns
        -------
        (n, m) float64
            Scaled varying targets; one column of zeros from a constant bundle.
        """
        return self.run({SECONDS_INPUT: seconds})

    def _check_signature(self) -> None:
        signature = self.signature
        given = self._session.get_inputs()
        if {one.name: _as_found(one) for one in given} != {one.name: _as_wanted(one) for one in signature.inputs}:
            _refuse(f"the model takes {_shown(given)}, the bundle says {_wanted(signature.inputs)}")
        if any(isinstance(one.shape[0], int) for one in given):
            _refuse("the model's batch has a fixed size")
        answered = self._session.get_outputs()
        if [(one.name, _as_found(one)) for one in answered] != [(OUTPUT, _as_wanted(signature.output))]:
            _refuse(f"the model answers {_shown(answered)}, the bundle says {_wanted((signature.output,))}")

    def _check_probe(self) -> None:
        expected = self.probe.answers
        try:
            answer = self.run(self.probe.inputs)
        except Exception as error:  # ONNX Runtime's errors share no base class
            msg = f"the model does not run: {error}"
            raise RejectedError(msg[:500], code="bad_bundle") from error
        if answer.shape != expected.shape:
            _refuse(f"the model answers the probe with shape {answer.shape}, not {expected.shape}")
        if not np.isfinite(answer).all():
            _refuse("the model answers the probe with numbers that are not finite")
        difference = relative_difference(answer, expected)
        if difference > PROBE_TOLERANCE:
            _refuse(f"the model answers the probe {difference:.2g} away from the trainer's own answer")


def check_model_bytes(bundle: Bundle, model_bytes: bytes) -> None:
    """Refuse bytes whose size or hash differs from the bundle."""
    if len(model_bytes) > MAX_MODEL_BYTES:
        _refuse(f"the model has {len(model_bytes)} bytes, more than {MAX_MODEL_BYTES}")
    digest = hashlib.sha256(model_bytes).hexdigest()
    if len(model_bytes) != bundle.model_size or digest != bundle.model_sha256:
        msg = (
            f"the model's {len(model_bytes)} bytes have the SHA-256 {digest[:12]}..., the bundle promised "
            f"{bundle.model_size} bytes and {bundle.model_sha256[:12]}..."
        )
        raise HashMismatchError(msg)


def relative_difference(answer: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Return the largest difference, relative to the largest expected value; 0 for two empty arrays."""
    if answer.size == 0:
        return 0.0
    scale = max(float(np.max(np.abs(expected))), 1e-9)  # keeps the scale above 0 if every expected value is 0
    return float(np.max(np.abs(answer - expected))) / scale


def _as_found(given: Any) -> tuple[str, list[Any] | None]:
    """Return the type and the shape without the batch of an input or output; no shape for a scalar."""
    return given.type, list(given.shape[1:]) if given.shape else None


def _as_wanted(tensor: Tensor) -> tuple[str, list[Any] | None]:
    return _TYPES[tensor.numbers], list(tensor.shape)


def _shown(given: Any) -> str:
    return str([(one.name, one.type, one.shape) for one in given])[:500]


def _wanted(tensors: tuple[Tensor, ...]) -> str:
    return ", ".join(f"{one.name} {_TYPES[one.numbers]} of (batch, {list(one.shape)})" for one in tensors)


@cache
def _share_memory() -> None:
    """Make all sessions of the process allocate from one pool; pools of their own would cost 3 MiB a champion."""
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(memory, None)


def _session(model_bytes: bytes, threads: int) -> Any:
    _share_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(model_bytes, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class
        msg = f"the model does not load: {error}"
        raise RejectedError(msg[:500], code="bad_bundle") from error


def _refuse(message: str) -> NoReturn:
    raise RejectedError(message, code="bad_bundle")
