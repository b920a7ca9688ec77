"""The handlers of inference: the server and the worker get hints, and the worker stores claims of test rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flts.contracts.events import DatasetDeleted, Event, InferenceData, ModelSelected
from flts.observability.logs import get_logger

if TYPE_CHECKING:
    from flts.service import Progress
    from flts.storage.forecasts import Forecasts
    from flts.storage.ports import ObjectStore
    from inference_container.stored_histories import StoredHistories

log = get_logger(__name__)


class OnModelSelected:
    """Handles the message as a hint: the pointer in the store is authoritative.

    Parameters
    ----------
    hint : callable
        Called with the identifier whose pointer moved or was removed.
    """

    def __init__(self, hint: Callable[[str], None]) -> None:
        self._hint = hint

    def __call__(self, event: ModelSelected | DatasetDeleted, progress: Progress) -> Sequence[Event]:  # noqa: ARG002 - a hint has no progress to report
        """Pass the hint on; produce nothing."""
        self._hint(event.identifier)
        return ()


class OnInferenceData:
    """Stores the claim of a run's test rows and returns at once; the worker's tick forecasts the rows.

    Parameters
    ----------
    store : ObjectStore
    forecasts : Forecasts
    histories : StoredHistories
        Writes the last of the rows for the inference replicas.
    """

    def __init__(self, store: ObjectStore, forecasts: Forecasts, histories: StoredHistories) -> None:
        self._store = store
        self._forecasts = forecasts
        self._histories = histories

    def __call__(self, event: InferenceData, progress: Progress) -> Sequence[Event]:
        """Store the claim, create-only.

        Raises
        ------
        RejectedError
            If the object is missing or differs from its claim; this check reports it now and not after the run.
        """
        # Imported here and not at the top: the inference server imports this module too, and it does not load the
        # store's client.
        from flts.storage.claims import check_claimed  # noqa: PLC0415

        check_claimed(self._store, event.raw_test)
        first = self._forecasts.put_inference(event)
        log.info("claim_check", object_key=event.raw_test.object_key, first=first)
        # The history comes before the decision, so that a new champion is not served without one.
        if event.config_hash is not None:
            self._histories.add(event.identifier, event.config_hash, event.raw_test)
        progress("forecast", "waiting")
        return ()
