"""The connections of a service, made from its settings. Each is imported and connected at its first use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from flts.observability.metrics import Metrics, default_metrics
from flts.settings import Settings, StoreSettings, TrackingSettings

if TYPE_CHECKING:
    from flts.messaging.kafka import Publisher
    from flts.storage.ports import ObjectStore
    from flts.storage.run_store import RunStore
    from flts.tracking.mlflow import Tracker

T = TypeVar("T")


class Adapters:
    """What `build_service` and the factories of child processes are given.

    Parameters
    ----------
    store, run_store : object or None
        The object store and its layout of runs; None for a service without one (the inference server).
    tracker : Tracker, a function that makes one, or None
        MLflow; a function is called at the first use, so that only the process that trains pays for the import.
    metrics : Metrics
        This process's metrics.
    settings : Settings
        What all of it was made from.
    """

    def __init__(
        self,
        store: ObjectStore | None,
        run_store: RunStore | None,
        tracker: Tracker | Callable[[], Tracker] | None,
        metrics: Metrics,
        settings: Settings,
    ) -> None:
        self._store = store
        self._run_store = run_store
        self._tracker = tracker
        self._publisher: Publisher | None = None
        self.metrics = metrics
        self.settings = settings

    @property
    def store(self) -> ObjectStore:
        """The object store."""
        return _present(self._store, "an object store")

    @property
    def has_store(self) -> bool:
        """Whether this service has an object store."""
        return self._store is not None

    @property
    def run_store(self) -> RunStore:
        """The records of pipeline runs."""
        return _present(self._run_store, "an object store")

    @property
    def tracker(self) -> Tracker | None:
        """MLflow's adapter; None for a service that keeps no record there."""
        if callable(self._tracker):
            self._tracker = self._tracker()
        return self._tracker

    @property
    def tracking(self) -> bool:
        """Whether there is a tracker, without making it."""
        return self._tracker is not None

    @property
    def publisher(self) -> Publisher:
        """The producer; there is one once the service has started, and none in a child process."""
        return _present(self._publisher, "a publisher (before the service has started, and in a child process)")

    @publisher.setter
    def publisher(self, publisher: Publisher) -> None:
        self._publisher = publisher

    @property
    def has_publisher(self) -> bool:
        """Whether the publisher is there yet."""
        return self._publisher is not None


def connect(settings: Settings, *, tracking: bool = False) -> Adapters:
    """Make the adapters that a service's settings describe; no request leaves before they are used.

    Parameters
    ----------
    settings : Settings
        A service's settings; without `StoreSettings` among its bases there is no store.
    tracking : bool
        Whether to keep a record in MLflow (`TrackingSettings`).
    """
    metrics = default_metrics()
    store, run_store = None, None
    if isinstance(settings, StoreSettings):
        # Imported here: the inference server has no store and need not load boto3.
        from flts.storage.connect import open_store  # noqa: PLC0415
        from flts.storage.run_store import RunStore  # noqa: PLC0415

        store = open_store(settings, _namespace(settings))
        run_store = RunStore(store, settings)
    tracker: Callable[[], Tracker] | None = None
    if tracking:
        if not isinstance(settings, TrackingSettings):
            msg = f"{type(settings).__name__} has no TrackingSettings"
            raise TypeError(msg)
        tracking_settings = settings

        def make_tracker() -> Tracker:
            from flts.tracking.mlflow import Tracker  # noqa: PLC0415 - 164 MB, only where runs are recorded

            bucket = settings.bucket_pipeline_runs if isinstance(settings, StoreSettings) else "pipeline-runs"
            return Tracker(tracking_settings, store, bucket)

        tracker = make_tracker
    return Adapters(store, run_store, tracker, metrics, settings)


def _namespace(settings: Settings) -> str:
    prefix = getattr(settings, "namespace_prefix", "")
    return prefix if isinstance(prefix, str) else ""


def _present(value: T | None, what: str) -> T:
    if value is None:
        msg = f"this process has not got {what}"
        raise RuntimeError(msg)
    return value
