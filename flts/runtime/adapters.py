"""The adapters of a service (store, MLflow, publisher, metrics), made from its settings."""

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
    """The adapters that `build_service` and the factories of child processes receive.

    Parameters
    ----------
    store, run_store : object or None
        The object store and its records of runs; None for a service without a store (the inference server).
    tracker : Tracker, a function that makes one, or None
        MLflow's adapter. A function is called at the first use, so that only processes that call MLflow import it.
    metrics : Metrics
        This process's metrics.
    settings : Settings
        The settings from which the adapters were made.
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
        """MLflow's adapter; None for a service that does not use MLflow."""
        if callable(self._tracker):
            self._tracker = self._tracker()
        return self._tracker

    @property
    def tracking(self) -> bool:
        """Whether the service uses MLflow; reading this property does not import MLflow."""
        return self._tracker is not None

    @property
    def publisher(self) -> Publisher:
        """The Kafka publisher. The runner sets it at the service's start; a child process has no publisher."""
        return _present(self._publisher, "a publisher (before the service has started, and in a child process)")

    @publisher.setter
    def publisher(self, publisher: Publisher) -> None:
        self._publisher = publisher

    @property
    def has_publisher(self) -> bool:
        """Whether the runner has set the publisher."""
        return self._publisher is not None


def connect(settings: Settings, *, tracking: bool = False) -> Adapters:
    """Make the adapters for a service's settings. An adapter sends no request before its first use.

    Parameters
    ----------
    settings : Settings
        A service's settings. Settings without the base class `StoreSettings` give no store.
    tracking : bool
        Whether the service records runs in MLflow; its settings then need the base class `TrackingSettings`.
    """
    metrics = default_metrics()
    store, run_store = None, None
    if isinstance(settings, StoreSettings):
        # The store's modules are imported here, because the inference server has no store and needs no boto3.
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
            from flts.tracking.mlflow import Tracker  # noqa: PLC0415 - the import needs 164 MB

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
