"""Request the refit of a promoted model, and decide whether the refitted bundle is served in its place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from eval_container.candidates import load_forecaster
from eval_container.contenders import contender_of
from eval_container.domain.gate import Reason
from eval_container.domain.scoring import LEAST_ORIGINS, origins_for
from eval_container.ending import Ending, at, promoted, refit_record
from eval_container.settings import EvalSettings
from flts.bundle.forecaster import Forecaster
from flts.contracts.champion_stage import DECIDED
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import Event, ModelRefit, ModelSelected, RefitRequest, TrainingData
from flts.contracts.ids import derived_event_id
from flts.errors import RejectedError
from flts.observability.logs import get_logger
from flts.runtime.adapters import Adapters
from flts.storage.claimed_frames import read_claimed_series
from flts.trainers import NEVER_REFITTED, trainer_of_model

log = get_logger(__name__)

MOST_LOSS_RATIO = 2.0
"""A refit with more than this times the loss of the judged model is thrown away."""
ROUNDING_LOSS = 1e-9
"""Mean squared error in scaled units below which a loss is rounding of float32 and is not compared."""
LIKE_JUDGED = ("identifier", "config_hash", "model_type", "train_hash", "recipe", "targets", "input_kind")
"""Fields of a bundle that a refit has from the judged bundle."""


class Refits:
    """The refits of promoted models.

    A refit is an addition to a run that has ended: no run waits for it, and if it never comes, the judged model stays.
    The run's record ``refit.json`` is created once and states whether the refit was promoted or refused, and why.

    Parameters
    ----------
    settings : EvalSettings
    adapters : Adapters
    ending : Ending
    now : callable
        Epoch seconds.
    """

    def __init__(self, settings: EvalSettings, adapters: Adapters, ending: Ending, now: Callable[[], float]) -> None:
        self._settings = settings
        self._adapters = adapters
        self._evaluations = adapters.run_store.evaluations
        self._ending = ending
        self._now = now

    def requests(self, events: Iterable[Event]) -> list[RefitRequest]:
        """Return the request for the decision among these events, none if the model of the run is not refitted.

        It follows from the published decision, so a repeated decision repeats the request until ``refit.json`` exists.
        """
        decided = (event for event in events if isinstance(event, ModelSelected) and event.stage in {None, DECIDED})
        return [request for event in decided if (request := self._request(event)) is not None]

    def decide(self, event: ModelRefit) -> list[Event]:
        """Return the event of the refitted champion; no event if the judged one stays."""
        name = (event.identifier, event.pipeline_run_id)
        record = self._evaluations.refit(*name)
        if record is None:
            decision = self._evaluations.decision(*name)
            expected = self._evaluations.expected(*name)
            if decision is None or expected is None or not promoted(decision, event):
                log.warning("refit_of_no_decision")
                return []
            data = TrainingData.model_validate(expected["training_data"])
            reason, rows_required = self._check(event, decision, data)
            document = refit_record(event, decision, at(self._now()), reason, rows_required)
            record, _ = self._evaluations.put_refit(*name, document)
        return self._ending.end_refit(record)

    def _request(self, event: ModelSelected) -> RefitRequest | None:
        name = (event.identifier, event.pipeline_run_id)
        if event.decision != "promoted" or event.bundle is None or event.model_type is None:
            return None
        trainer = trainer_of_model(event.model_type)
        # A decision without a score is one on a data set in which no target varies.
        if trainer is None or event.model_type in NEVER_REFITTED or event.score is None:
            return None
        expected = self._evaluations.expected(*name)  # a rollback has none: its model was refitted in its own run
        if expected is None or self._evaluations.refit(*name) is not None:
            return None
        data = TrainingData.model_validate(expected["training_data"])
        if not self._settings.with_overrides(data.settings).refit:
            return None
        return RefitRequest(
            **{**data.model_dump(), "event_id": derived_event_id(event.pipeline_run_id, RefitRequest.HEADER_EVENT)},
            model_type=event.model_type,
            judged=event.bundle,
        )

    def _check(self, event: ModelRefit, decision: Mapping[str, Any], data: TrainingData) -> tuple[Reason, int | None]:
        """Return the reason for the refit's result, and the rows that it requires; None if it is thrown away."""
        if event.status == "FAILED" or event.bundle is None:
            return Reason("refit_failed", event.error or "its trainer gave no reason"), None
        try:
            judged = load_forecaster(self._adapters.store, ClaimCheck.model_validate(decision["bundle"]))
            refit = load_forecaster(self._adapters.store, event.bundle)
        except RejectedError as error:
            return Reason(error.code, error.message), None
        bundle = refit.bundle
        other = [name for name in LIKE_JUDGED if getattr(bundle, name) != getattr(judged.bundle, name)]
        if other or bundle.fit != "refitted":
            return Reason("other_bundle", f"its bundle has another {', '.join(other or ('fit',))}"), None
        return self._compare(refit, judged, data)

    def _compare(self, refit: Forecaster, judged: Forecaster, data: TrainingData) -> tuple[Reason, int | None]:
        """Compare the losses of both on the held-out rows, which the refit was fitted on."""
        test = read_claimed_series(self._adapters.store, data.raw_test)
        first, targets = data.raw_test_context_rows, judged.recipe.varying_targets
        horizon = data.horizon_steps or self._settings.with_overrides(data.settings).pass_steps
        usable = np.intersect1d(refit.valid_origins(test, first), judged.valid_origins(test, first))
        origins = origins_for(usable, test.segments(), first_row=first, horizon=horizon, limit=LEAST_ORIGINS)
        actual = test.select(targets).values[origins[:, None] + np.arange(horizon)]
        known = np.isfinite(actual)
        if not known.any():
            return Reason("no_test_rows", "no held-out row can be forecast by both fits"), None
        losses = []
        for forecaster in (refit, judged):
            forecasts = contender_of(forecaster, test, targets).forecast(origins, horizon)
            errors = (forecasts - actual) / judged.recipe.scales_of_targets
            losses.append(float(np.square(errors[known]).mean()))
        loss, of_judged = losses
        if not math.isfinite(loss):
            return Reason("refit_not_finite", "it forecasts values that are not finite"), None
        ratio = f"{loss / of_judged:.3g}" if of_judged > 0 else "more than 1,000"
        compared = f"its mean squared error on the held-out rows is {ratio} times that of the judged model"
        if loss > max(MOST_LOSS_RATIO * of_judged, ROUNDING_LOSS):
            return Reason("refit_lost", compared), None
        return Reason("refitted", f"fitted again on all rows; {compared}"), refit.rows_required
