"""The description of a service as data. Containers, the embedded mode and tests run the same description."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from flts.contracts.events import Event
    from flts.contracts.topics import Topic
    from flts.errors import FltsError


class Progress(Protocol):
    """The function with which a handler reports progress, to users and to the detector of stuck work."""

    def __call__(
        self,
        stage: str,
        state: str,
        *,
        epoch: int | None = None,
        epochs: int | None = None,
        loss: float | None = None,
        detail: str | None = None,
    ) -> None:
        """Report progress; never raises. At most one report a second per stage and state is published."""
        ...


class Handler(Protocol):
    """Processes one event and returns the events to publish; it never publishes or commits."""

    def __call__(self, event: Any, progress: Progress) -> Sequence[Event]:
        """Process one event. A repeat is harmless, because the keys of the objects that it writes contain a hash."""
        ...


@dataclass(frozen=True, slots=True)
class WorkEvents:
    """Names of the log events about the work of a subscription."""

    retry: str = "retry_defer"
    """An attempt failed, and another attempt follows."""
    failed: str | None = None
    """The last attempt failed; if None, ``dead_letter`` or ``message_dropped`` is logged instead."""
    stuck: str = "work_stuck"
    """The work reported no progress for `TRAIN_STUCK_SECONDS`."""


def _wants_all(_event: Event) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Subscription:
    """The topics that a service consumes, and its handler."""

    topics: tuple[Topic, ...]
    mode: Literal["group", "all"]
    """`group`: the replicas share the partitions; `all`: each replica reads every partition, without a group."""
    handler: Handler | None = None
    """Called in a thread of the service's process."""
    child: str | None = None
    """For long work: ``module:function`` that a child process calls as ``function(settings, adapters) -> Handler``."""
    niceness: int = 0
    """Of the child process, as in ``nice``; long work of a higher one leaves the cores to work that people wait for."""
    group: str | None = None
    """The consumer group; None is the name of the service."""
    wants: Callable[[Event], bool] = _wants_all
    """Whether the service processes an event; the offset of another one is committed without an attempt."""
    on_exhausted: Callable[[Event, FltsError | None, str], Sequence[Event]] | None = None
    """Called with (event, error, message) after the dead letter; returns events to publish, e.g. a trainer's FAILED."""
    log_events: WorkEvents = WorkEvents()


@dataclass(frozen=True, slots=True)
class Tick:
    """A periodic task of a service, in a thread of its own."""

    name: str
    period_seconds: float
    run: Callable[[], Sequence[Event]]
    """Returned events are published. An error is logged and counted, and the function runs again after the period."""


@dataclass(frozen=True, slots=True)
class Service:
    """Everything that the runner needs to run a service."""

    name: str
    """Also the `service` of logs, the default consumer group and the component label: ``train-gru``."""
    subscriptions: tuple[Subscription, ...] = ()
    ticks: tuple[Tick, ...] = ()
    api: Any = None
    """ASGI application of a service with an API; the runner adds /healthz, /readyz and /metrics."""
    ready: Mapping[str, Callable[[], bool]] = field(default_factory=dict)
    """Additional conditions of /readyz, by name."""
    on_start: tuple[Callable[[], None], ...] = ()
    """Called once, in a thread, after the backends answered and before the first message is read."""
    on_drain: tuple[Callable[[], None], ...] = ()
    """Called once when the service begins to stop, to end requests that would not end otherwise."""
    on_stop: tuple[Callable[[], None], ...] = ()
    """Called once, after the work on the last message and before the publisher closes."""
    requires_backends: bool = True
    """Whether the service exits with the reason if the store or the brokers do not answer at start. If false, they are
    checked in the background, and `on_start` runs at once."""
