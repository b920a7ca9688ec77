"""A service as a plain value, so that containers, the embedded mode and tests run the same one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from flts.contracts.events import Event
    from flts.contracts.topics import Topic
    from flts.errors import FltsError


class Progress(Protocol):
    """A handler reports progress through it, to people and to the detector of stuck work."""

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
        """Report; cheap, never raises, and is thinned out to one message a second on its way."""
        ...


class Handler(Protocol):
    """One event in, facts out; it never publishes or commits."""

    def __call__(self, event: Any, progress: Progress) -> Sequence[Event]:
        """Process one event. The keys of artefacts contain their hash, so a repetition is harmless."""
        ...


@dataclass(frozen=True, slots=True)
class WorkEvents:
    """Names of the log events of a subscription's work."""

    retry: str = "retry_defer"
    """An attempt failed, and there is another one."""
    failed: str | None = None
    """The last attempt failed; None: the event says where the record went, ``dead_letter`` or ``message_dropped``."""
    stuck: str = "work_stuck"
    """No progress for `TRAIN_STUCK_SECONDS`."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """The topics that a service consumes, and its handler."""

    topics: tuple[Topic, ...]
    mode: Literal["group", "all"]
    """`group`: partitions are shared with the other replicas; `all`: each replica reads every partition, no group."""
    handler: Handler | None = None
    """Called in a thread of the service's process."""
    child: str | None = None
    """``module:function`` that a child process calls as ``function(settings, adapters) -> Handler``, for long work."""
    group: str | None = None
    """The group; the service's name unless given."""
    on_exhausted: Callable[[Event, FltsError | None, str], Sequence[Event]] | None = None
    """(event, error, message) after the last attempt, beside the dead letter: e.g. a trainer's FAILED event."""
    log_events: WorkEvents = WorkEvents()


@dataclass(frozen=True, slots=True)
class Tick:
    """Something a service does every so often, in a thread of its own."""

    name: str
    period_seconds: float
    run: Callable[[], Sequence[Event]]
    """Returned events are published; an error is logged and counted, and the next tick tries again."""


@dataclass(frozen=True, slots=True)
class Service:
    """Everything the runner needs to know of a service."""

    name: str
    """The `service` of logs, the default group and the component label: ``train-gru``."""
    subscriptions: tuple[Subscription, ...] = ()
    ticks: tuple[Tick, ...] = ()
    api: Any = None
    """ASGI application, where the service speaks HTTP; the runner adds /healthz, /readyz and /metrics in front."""
    ready: Mapping[str, Callable[[], bool]] = field(default_factory=dict)
    """Further conditions of /readyz, by name."""
    on_start: tuple[Callable[[], None], ...] = ()
    """Called once, in a thread, after the backends answered and before the first message is read."""
    on_drain: tuple[Callable[[], None], ...] = ()
    """Called once, at the moment the service begins to stop: ends requests that would never end by themselves."""
    on_stop: tuple[Callable[[], None], ...] = ()
    """Called once, after the last message's work and before the publisher closes."""
    requires_backends: bool = True
    """Whether the service ends, saying why, if store or brokers do not answer at start; without it they are looked for
    in the background, and `on_start` runs at once."""
