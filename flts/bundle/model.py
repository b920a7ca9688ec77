"""The model of a bundle, checked and ready to run: by default in one thread, without busy waiting."""

from __future__ import annotations

import hashlib
from typing import Any, NoReturn

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from flts.bundle.format import MAX_BATCH, MAX_MODEL_BYTES, Bundle
from flts.bundle.graph import check_graph
from flts.errors import HashMismatchError, RejectedError

PROBE_TOLERANCE = 1e-4
"""Largest relative difference from the trainer's answer; between machines the difference is below 1e-6."""
WINDOW_INPUT, SECONDS_INPUT, OUTPUT = "window", "seconds", "forecast"
_FLOAT32, _FLOAT64, _INT64 = "tensor(float)", "tensor(double)", "tensor(int64)"


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
        the bundle, or if its answer to the probe differs.
    """

    def __init__(self, bundle: Bundle, model_bytes: bytes, *, threads: int = 1) -> None:
        self.bundle = bundle
        check_model_bytes(bundle, model_bytes)
        check_graph(model_bytes)
        self._session = _session(model_bytes, threads)
        self._check_signature()
        self._check_probe()

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
        return self._run(WINDOW_INPUT, inputs, (0, self.bundle.output_seq_len, self.bundle.output_columns))

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
        return self._run(SECONDS_INPUT, seconds, (0, self.bundle.output_columns))

    def _run(self, name: str, inputs: NDArray[Any], nothing: tuple[int, ...]) -> NDArray[np.float64]:
        parts = [
            np.asarray(self._session.run([OUTPUT], {name: inputs[at : at + MAX_BATCH]})[0], dtype=np.float64)
            for at in range(0, len(inputs), MAX_BATCH)
        ]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(nothing)

    def _check_signature(self) -> None:
        bundle = self.bundle
        window = bundle.input_kind == "window"
        name, kind = (WINDOW_INPUT, _FLOAT32) if window else (SECONDS_INPUT, _INT64)
        inner = [bundle.input_seq_len, len(bundle.recipe.feature_names)] if window else []
        answer = [bundle.output_seq_len, bundle.output_columns] if window else [bundle.output_columns]
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if [(given.name, given.type) for given in inputs] != [(name, kind)] or inputs[0].shape[1:] != inner:
            shown = [(given.name, given.type, given.shape) for given in inputs]
            _refuse(f"the model takes {shown}, the bundle says {name} {kind} of (batch, {inner})")
        if isinstance(inputs[0].shape[0], int):
            _refuse("the model's batch has a fixed size")
        kind = _FLOAT32 if window else _FLOAT64
        if [(given.name, given.type) for given in outputs] != [(OUTPUT, kind)] or outputs[0].shape[1:] != answer:
            shown = [(given.name, given.type, given.shape) for given in outputs]
            _refuse(f"the model answers {shown}, the bundle says {OUTPUT} {kind} of (batch, {answer})")

    def _check_probe(self) -> None:
        expected = np.asarray(self.bundle.probe["outputs"], dtype=np.float64)
        try:
            if self.bundle.input_kind == "window":
                answer = self.run_windows(np.asarray(self.bundle.probe["inputs"], dtype=np.float32))
            else:
                answer = self.run_timestamps(np.asarray(self.bundle.probe["inputs"], dtype=np.int64))
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


def _session(model_bytes: bytes, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(model_bytes, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class
        msg = f"the model does not load: {error}"
        raise RejectedError(msg[:500], code="bad_bundle") from error


def _refuse(message: str) -> NoReturn:
    raise RejectedError(message, code="bad_bundle")
