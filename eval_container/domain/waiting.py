"""The rules for how long eval waits for a trainer, as pure functions of times."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from eval_container.domain.gate import Reason
from flts.trainers import BASELINES, TRAINERS, announced_after

EARLY = next(trainer for trainer in TRAINERS if trainer.baselines)
"""The trainer of the baselines; its models are formulas, so they are ready seconds after the training data."""


@dataclass(frozen=True, slots=True)
class Patience:
    """The two limits of waiting, in seconds."""

    silence_seconds: float
    """Time without an event or progress of a model type after which eval no longer waits for it."""
    max_seconds: float
    """Time after the run's start at which eval no longer waits for a missing trainer."""


def missing_types(expected: Collection[str], final: Collection[str]) -> tuple[str, ...]:
    """Return the expected types without a final event, in the order of ``expected``."""
    return tuple(model_type for model_type in expected if model_type not in final)


def awaited_types(expected: Collection[str], final: Collection[str]) -> tuple[str, ...]:
    """Return the missing types that may still send a final event.

    A trainer announces its model types in a fixed order. If it announced a later one, it does not know the missing one:
    its release is older than eval's.
    """
    return tuple(kind for kind in missing_types(expected, final) if not _passed_over(kind, final))


def early_types(expected: Collection[str]) -> tuple[str, ...]:
    """Return the expected types that the trainer of the baselines makes, in the order of ``expected``."""
    return tuple(kind for kind in expected if kind in EARLY.candidates)


def early_types_are_final(expected: Collection[str], final: Collection[str], made: Collection[str]) -> bool:
    """Return whether the trainer of the baselines has announced all its results of a run.

    Parameters
    ----------
    expected, final : collection of str
        Model types that the run waits for, and those with a final event.
    made : collection of str
        Baselines in the trainer's record of the run. A baseline that the data do not allow is not announced.
    """
    return {*early_types(expected), BASELINES[0], *made} <= {*final}


def given_up(
    missing: Collection[str],
    *,
    now: float,
    started: float,
    last_sign: Mapping[str, float],
    patience: Patience,
) -> bool:
    """Return whether eval stops waiting: every missing type is silent, or the run is too old.

    While one missing type still sends events or progress, eval waits for all, because its candidate may be the best.

    Parameters
    ----------
    now, started : float
        The current time and the run's start, epoch seconds.
    last_sign : mapping
        Epoch seconds of the last event or progress in any run, by model type; the run's start for a type without one.
    """
    if now - started >= patience.max_seconds:
        return True
    return all(now - max(last_sign.get(kind, started), started) >= patience.silence_seconds for kind in missing)


def why_missing(model_type: str, final: Collection[str], *, now: float, started: float, patience: Patience) -> Reason:
    """Return the scoreboard's reason for a model type that eval no longer waits for."""
    if later := _passed_over(model_type, final):
        return Reason(
            "not_trained", f"the trainer of {model_type} sent {', '.join(later)} without it: is its release older?"
        )
    waited = now - started
    if waited >= patience.max_seconds:
        return Reason("too_long", f"{model_type} sent no result within {patience.max_seconds:g} s of the run's start")
    return Reason(
        "silent",
        f"{model_type} sent no event or progress for {patience.silence_seconds:g} s: is its trainer running?",
    )


def _passed_over(model_type: str, final: Collection[str]) -> tuple[str, ...]:
    """Return the model types with a final event that the same trainer announces after this one."""
    return tuple(kind for kind in announced_after(model_type) if kind in final)
