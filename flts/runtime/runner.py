"""Start a service, keep it running and end it in order. All services use this runner."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from flts import killpoints
from flts.contracts.topics import dead_letter_topic
from flts.errors import BackendAwayError
from flts.messaging.attempts import Attempts, MemoryAttempts, StoredAttempts
from flts.messaging.consumer import ConsumeLoop
from flts.messaging.delivery import Delivery, Stopping, Work
from flts.messaging.kafka import Publisher, full_name
from flts.observability.health import Health, HealthApp
from flts.observability.logs import configure_logs, get_logger, secret_values
from flts.observability.metrics import MESSAGE_OUTCOMES, MLFLOW_OUTCOMES, TICK_OUTCOMES, begin_at_zero
from flts.processes.worker import ChildWorker, WorkerSpec, settings_path
from flts.runtime.adapters import Adapters
from flts.runtime.backends import Problem, backend_checks, record_checks, run_checks
from flts.runtime.server import HttpServer, bind
from flts.service import Service, Subscription, Tick
from flts.settings import KafkaSettings, ServiceSettings, StoreSettings

log = get_logger(__name__)

CLOSE_SECONDS = 4.0
"""Seconds beyond DRAIN_SECONDS in which the threads may end and close their clients, before the pod is killed."""
TICK_SILENT_SECONDS = 900.0
RECHECK_SECONDS = 5.0
RECORD_RECHECK_SECONDS = 30.0


def run(service: Service, settings: ServiceSettings, adapters: Adapters) -> int:
    """Run a service until a signal stops it (SIGTERM, SIGINT) or an error ends it.

    The runner starts the child processes first, before any Kafka client. Then the health paths answer, and the runner
    checks the backends, calls `on_start` and starts the consume loops.

    Returns
    -------
    int
        0 after a signal; 2 if a backend answers and cannot be used, for example because of wrong settings; 1
        otherwise. The log event ``service_stopped`` contains the reason.
    """
    configure_logs(service.name, settings.log_level, secrets=secret_values(settings))
    if settings.kill_points is not None:
        log.warning(
            "kill_points_on", folder=str(settings.kill_points), why="KILL_POINTS is set, which is for tests only"
        )
        killpoints.switch_on(settings.kill_points, service.name)
    return _Runner(service, settings, adapters).run()


class _Runner:
    def __init__(self, service: Service, settings: ServiceSettings, adapters: Adapters) -> None:
        self._service = service
        self._settings = settings
        self._adapters = adapters
        self._metrics = adapters.metrics
        self._health = Health()
        self._stopping = Stopping()
        self._lock = threading.Lock()
        self._reason: str | None = None
        self._asked_to = False
        self._refused = False
        self._started = threading.Event()
        self._backends_answer = threading.Event()
        self._workers: dict[int, ChildWorker] = {}
        self._loops: list[ConsumeLoop] = []
        self._threads: list[threading.Thread] = []
        self._server = HttpServer(HealthApp(self._health, self._metrics, service.api))

    def run(self) -> int:
        self._say_version()
        try:
            listener = bind(self._settings.service_host, self._settings.service_port)
        except OSError as error:
            address = f"{self._settings.service_host}:{self._settings.service_port}"
            self._stop(f"SERVICE_PORT: {address} cannot be listened on: {error.strerror}", asked=False)
            return self._finish()
        self._require()
        starter = threading.Thread(target=self._start, name="start", daemon=True)
        with listener, self._signals():
            # Child processes start from this thread, which lives as long as the process. On Linux PR_SET_PDEATHSIG
            # kills a child when the thread that started it ends.
            self._start_children()
            starter.start()
            try:
                self._server.run(sockets=[listener])
            except SystemExit:
                self._stop("the API did not start", asked=False)
            self._stop("the HTTP server ended", asked=False)
            starter.join(timeout=1.0)  # the thread may hang in a request; it is a daemon and ends with the process
            return self._finish()

    def _say_version(self) -> None:
        version, commit = importlib.metadata.version("flts"), self._settings.flts_commit
        self._metrics.build_info.labels(version=version, commit=commit, service=self._service.name).set(1)
        self._begin_metrics()
        log.info("version_start", version=version, commit=commit, python=sys.version.split()[0], pid=os.getpid())

    def _begin_metrics(self) -> None:
        metrics = self._metrics
        for subscription in self._service.subscriptions:
            names = [topic.name for topic in subscription.topics]
            begin_at_zero(metrics.messages, names, MESSAGE_OUTCOMES)
            if subscription.mode == "group":
                begin_at_zero(metrics.dead_letters, names)
        begin_at_zero(metrics.ticks, [tick.name for tick in self._service.ticks], TICK_OUTCOMES)
        if self._adapters.tracking:
            begin_at_zero(metrics.mlflow_calls, MLFLOW_OUTCOMES)

    def _require(self) -> None:
        health = self._health
        if self._service.requires_backends:
            health.require("backends", self._backends_answer.is_set)
        health.require("start", self._started.is_set)
        health.require("not stopping", lambda: not self._stopping.asked.is_set())
        for what, holds in self._service.ready.items():
            health.require(what, holds)
        if self._service.requires_backends and self._service.api is None:
            # A service with an API can answer requests without Kafka, so only a service without an API must be
            # connected to Kafka to be ready.
            health.require("kafka", lambda: all(loop.connected for loop in self._loops))

    def _start_children(self) -> None:
        for index, subscription in enumerate(self._service.subscriptions):
            if subscription.child is None:
                continue
            kafka = self._kafka()
            spec = WorkerSpec(
                factory=subscription.child,
                niceness=subscription.niceness,
                settings_class=settings_path(self._settings),
                service=self._service.name,
                log_level=self._settings.log_level,
                tracking=self._adapters.tracking,
                stuck_seconds=kafka.train_stuck_seconds,
                deadline_seconds=kafka.work_deadline_seconds,
                stuck_event=subscription.log_events.stuck,
            )
            worker = self._workers[index] = ChildWorker(spec, self._metrics)
            worker.start()

    def _start(self) -> None:
        try:
            # The thread is a daemon, so a shutdown does not wait for it. The check changes nothing and can end at any
            # point.
            threading.Thread(target=self._check_record, name="record", daemon=True).start()
            if isinstance(self._settings, KafkaSettings):
                self._adapters.publisher = Publisher(self._settings, self._service.name)
            if self._service.requires_backends:
                problems = self._check()
                if self._stopping.asked.is_set():
                    return
                if problems:
                    self._refused = any(problem.refused for problem in problems)
                    self._stop(f"backend check: {_reasons(problems)}", asked=False)
                    return
                self._backends_answer.set()
            else:
                self._spawn("backends", self._check_in_background)
            self._begin_work()
        except Exception as error:  # a service that cannot start must log any error and end
            log.exception("start_error")
            self._stop(f"start failed: {type(error).__name__}: {error}", asked=False)

    def _begin_work(self) -> None:
        for worker in self._workers.values():
            worker.wait_until_ready(self._stopping.asked)
        self._loops = [self._make_loop(index, each) for index, each in enumerate(self._service.subscriptions)]
        for loop in self._loops:
            loop.take_ends()
        for hook in self._service.on_start:
            if self._stopping.asked.is_set():
                return
            hook()
        for loop in self._loops:
            self._spawn(loop.name, loop.run)
        for tick in self._service.ticks:
            self._spawn(f"tick-{tick.name}", lambda tick=tick: self._run_tick(tick))
        self._started.set()

    def _make_loop(self, index: int, subscription: Subscription) -> ConsumeLoop:
        kafka = self._kafka()
        group = subscription.group or self._service.name
        shared = subscription.mode == "group"
        work = self._work_of(index, subscription)
        delivery = Delivery(
            service=self._service.name,
            subscription=subscription,
            work=self._unless_deleted(work) if shared else work,
            attempts=self._attempts_of(group) if shared else MemoryAttempts(kafka.failure_max_retries),
            publisher=self._adapters.publisher,
            metrics=self._metrics,
            stopping=self._stopping,
            max_attempts=kafka.failure_max_retries,
            backoff_seconds=kafka.retry_backoff_seconds,
            dead_letters=full_name(kafka, dead_letter_topic(group)) if shared else None,
            only_group=group,
        )
        return ConsumeLoop(
            subscription,
            delivery,
            kafka,
            client_id=self._service.name,
            health=self._health,
            metrics=self._metrics,
            stopping=self._stopping,
            on_fatal=lambda reason: self._stop(reason, asked=False),
        )

    def _work_of(self, index: int, subscription: Subscription) -> Work:
        worker = self._workers.get(index)
        if worker is not None:
            return lambda event, progress: worker.run(event, progress, self._stopping.over)
        if subscription.handler is None:
            msg = f"a subscription of {self._service.name} has neither a handler nor a child"
            raise ValueError(msg)
        return subscription.handler

    def _unless_deleted(self, work: Work) -> Work:
        if not (isinstance(self._settings, StoreSettings) and self._adapters.has_store):
            return work
        from flts.housekeeping.deletion import Deletion  # noqa: PLC0415 - the inference server has no store
        from flts.housekeeping.guard import unless_deleted  # noqa: PLC0415 - the inference server has no store

        deletion = Deletion(self._adapters.store, self._adapters.run_store.runs, self._settings)
        return unless_deleted(work, deletion)

    def _attempts_of(self, group: str) -> Attempts:
        tries = self._kafka().failure_max_retries
        if isinstance(self._settings, StoreSettings) and self._adapters.has_store:
            return StoredAttempts(self._adapters.store, self._settings.bucket_pipeline_runs, group, tries)
        return MemoryAttempts(tries)

    def _check(self) -> list[Problem]:
        groups = [each.group or self._service.name for each in self._service.subscriptions if each.mode == "group"]
        checks = backend_checks(self._settings, self._adapters, self._service.name, groups, self._stopping.asked)
        return run_checks(checks, self._metrics)

    def _check_in_background(self) -> None:
        problems = self._check()
        while problems:
            log.warning("backend_away", error=_reasons(problems))
            if self._stopping.asked.wait(RECHECK_SECONDS):
                return
            problems = self._check()
        self._backends_answer.set()

    def _check_record(self) -> None:
        """Check MLflow until it answers, and log the reason when it changes. The service does not wait for MLflow."""
        checks = record_checks(self._settings, self._adapters, self._stopping.asked)
        logged = ""
        while (problems := run_checks(checks, self._metrics)) and not self._stopping.asked.is_set():
            if _reasons(problems) != logged:
                logged = _reasons(problems)
                log.warning("backend_away", error=logged)
            self._stopping.asked.wait(RECORD_RECHECK_SECONDS)

    def _run_tick(self, tick: Tick) -> None:
        name = f"tick-{tick.name}"
        self._health.watch(name, silent_seconds=tick.period_seconds + TICK_SILENT_SECONDS)
        while not self._stopping.asked.is_set():
            self._health.beat(name)
            outcome = "done"
            try:
                produced = tick.run()
                if produced:
                    self._adapters.publisher.publish_all(produced)
            except BackendAwayError as error:
                outcome = "backend_away"
                log.warning("tick_deferred", tick=tick.name, error=str(error))
            except Exception:  # the next tick tries again
                outcome = "error"
                log.exception("tick_error", tick=tick.name)
            self._metrics.ticks.labels(tick=tick.name, outcome=outcome).inc()
            self._stopping.asked.wait(tick.period_seconds)
        self._health.forget(name)

    def _spawn(self, name: str, target: object) -> None:
        assert callable(target)
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # A signal interrupts the main thread at any point, also while it holds a lock. So another thread does the work.
        if self._stopping.asked.is_set():
            self._stopping.over.set()
        name = signal.Signals(number).name
        threading.Thread(target=self._stop, args=(name,), kwargs={"asked": True}, daemon=True).start()

    def _stop(self, reason: str, *, asked: bool) -> None:
        """Begin to stop the service. Only the first call has an effect."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason, self._asked_to = reason, asked
        log.info("service_stopping", reason=reason)
        self._stopping.asked.set()
        drain = self._kafka().drain_seconds if isinstance(self._settings, KafkaSettings) else 0.0
        timer = threading.Timer(drain, self._stopping.over.set)
        timer.daemon = True
        timer.start()
        for hook in self._service.on_drain:
            self._call(hook)
        self._server.should_exit = True

    def _finish(self) -> int:
        drain = self._kafka().drain_seconds if isinstance(self._settings, KafkaSettings) else 0.0
        deadline = time.monotonic() + drain + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(timeout=max(0.1, deadline - time.monotonic()))
        for hook in self._service.on_stop:
            self._call(hook)
        if self._adapters.has_publisher:
            self._call(self._adapters.publisher.close)
        for worker in self._workers.values():
            self._call(worker.stop)
        code = 0 if self._asked_to else 2 if self._refused else 1
        level = log.info if self._asked_to else log.error
        level("service_stopped", reason=self._reason, exit_code=code)
        sys.stdout.flush()
        if any(loop.abandoned for loop in self._loops):
            # The handler of an abandoned loop still runs in a thread, which could crash in C code while the interpreter
            # shuts down. So os._exit ends the process without this shutdown.
            os._exit(code)
        return code

    def _call(self, hook: object) -> None:
        assert callable(hook)
        try:
            hook()
        except Exception:  # the remaining hooks must still be called
            log.exception("stop_error")

    def _kafka(self) -> KafkaSettings:
        if not isinstance(self._settings, KafkaSettings):
            msg = f"{type(self._settings).__name__} has no KafkaSettings, and {self._service.name} consumes messages"
            raise TypeError(msg)
        return self._settings


def _reasons(problems: list[Problem]) -> str:
    return "; ".join(problem.reason for problem in problems)
