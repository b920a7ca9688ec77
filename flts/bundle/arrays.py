"""The arrays that a bundle of format 2 keeps in its model file: the probe and the quantiles of the intervals.

``bundle.json`` has at most 8 MiB, which arrays per series would exceed. They are ONNX initializers that no node uses:
``bundle.probe.<input>`` for each input of the model, ``bundle.probe.forecast``, and ``bundle.intervals.values``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from flts.bundle.format import Bundle
from flts.bundle.tensors import OUTPUT, Signature
from flts.errors import RejectedError
from flts.forecasting.direct import CLOCK, PLACES
from flts.forecasting.rolling import Inputs

PROBE = "probe."
INTERVALS = "intervals.values"
MAX_PROBE_ROWS = 64
_FLOATS = (np.dtype("float32"), np.dtype("float64"))


@dataclass(frozen=True, slots=True)
class Probe:
    """Inputs of a model and the trainer's own answers."""

    inputs: Inputs
    answers: NDArray[np.float64]
    """(b, H, m) or (b, m), scaled varying targets."""


def probe_of_document(bundle: Bundle, signature: Signature) -> Probe:
    """Return the probe of a bundle of format 1, whose model has one input."""
    assert bundle.probe is not None
    [tensor] = signature.inputs
    inputs = {tensor.name: np.asarray(bundle.probe["inputs"], dtype=tensor.numbers)}
    return Probe(inputs, np.asarray(bundle.probe["outputs"], dtype=np.float64))


def read_arrays(bundle: Bundle, signature: Signature, arrays: Mapping[str, NDArray[Any]]) -> tuple[Bundle, Probe]:
    """Return the bundle with the quantiles of its intervals, and its probe.

    Parameters
    ----------
    bundle : Bundle
        Of any format.
    signature : Signature
    arrays : name -> array
        As `check_graph` returns them; what is kept is copied.

    Raises
    ------
    RejectedError
        ``bad_bundle`` for arrays that are missing, unknown, of another type or shape than the bundle says, or out of
        range.
    """
    expected = _expected(bundle, signature)
    if set(arrays) != expected:
        missing, unknown = sorted(expected - set(arrays)), sorted(set(arrays) - expected)
        _refuse(f"the model file lacks the arrays {missing} and has the unknown arrays {unknown}"[:300])
    if bundle.probe is not None:
        return bundle, probe_of_document(bundle, signature)
    return _with_intervals(bundle, arrays), _probe(bundle, signature, arrays)


def _expected(bundle: Bundle, signature: Signature) -> set[str]:
    if bundle.probe is not None:
        return set()
    names = {f"{PROBE}{tensor.name}" for tensor in (*signature.inputs, signature.output)}
    return names | ({INTERVALS} if bundle.calibrated_steps else set())


def _probe(bundle: Bundle, signature: Signature, arrays: Mapping[str, NDArray[Any]]) -> Probe:
    answers = arrays[f"{PROBE}{OUTPUT}"]
    rows = answers.shape[0] if answers.ndim else 0
    if not 1 <= rows <= MAX_PROBE_ROWS:
        _refuse(f"the probe has {rows} rows, not 1 to {MAX_PROBE_ROWS}")
    _check_array(f"{PROBE}{OUTPUT}", answers, _FLOATS, (rows, *signature.output.shape))
    inputs = {}
    for tensor in signature.inputs:
        name = f"{PROBE}{tensor.name}"
        _check_array(name, arrays[name], (np.dtype(tensor.numbers),), (rows, *tensor.shape))
        inputs[tensor.name] = np.array(arrays[name])
    places, clock = inputs.get(PLACES), inputs.get(CLOCK)
    if places is not None and ((places < 0) | (places >= np.array(bundle.seasons))).any():
        _refuse(f"a place of the probe is outside of its season; the seasons have {list(bundle.seasons)} rows")
    if clock is not None and ((clock < 0) | (clock >= 1)).any():
        _refuse("a turn of the probe's clock is not in [0, 1)")
    return Probe(inputs, np.array(answers, dtype=np.float64))


def _with_intervals(bundle: Bundle, arrays: Mapping[str, NDArray[Any]]) -> Bundle:
    intervals = bundle.intervals
    if intervals is None or not intervals.steps:
        return bundle
    shape = (len(intervals.probabilities), len(intervals.steps), len(bundle.recipe.varying_targets))
    _check_array(INTERVALS, arrays[INTERVALS], _FLOATS, shape)
    try:
        return replace(bundle, intervals=intervals.with_values(arrays[INTERVALS]))
    except RejectedError as error:
        raise RejectedError(error.message, code="bad_bundle", field="intervals") from error


def _check_array(name: str, array: NDArray[Any], numbers: tuple[np.dtype[Any], ...], shape: tuple[int, ...]) -> None:
    if array.dtype not in numbers or array.shape != shape:
        wanted = " or ".join(map(str, numbers))
        _refuse(f"the array {name} is {array.dtype} of {array.shape}, the bundle says {wanted} of {shape}"[:300])


def _refuse(message: str) -> NoReturn:
    raise RejectedError(message, code="bad_bundle")
