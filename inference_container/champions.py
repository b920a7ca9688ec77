"""The champions of a replica: their list, their state, and the swap to a new champion.

The event loop only reads the list. One thread at a time changes it. A swap is one assignment, after the new champion
was loaded, has answered its probe and was warmed, while the old one served.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from flts.contracts.ids import GLOBAL_IDENTIFIER, check_identifier
from flts.errors import FltsError, NotFoundError, RejectedError, RetryableError
from flts.killpoints import reached
from flts.observability.logs import bind, get_logger
from flts.observability.metrics import MODEL_LOAD_OUTCOMES, Metrics, begin_at_zero
from inference_container.cache import ChampionCache, Pointers
from inference_container.domain.champion import Champion, load_champion
from inference_container.domain.history import History
from inference_container.domain.promotion import Promotion
from inference_container.loaded_history import having_history

log = get_logger(__name__)

SHOWN_IDENTIFIERS = 20
RETRY_AFTER_SECONDS = 5
FIRST_CHAMPIONS_SECONDS = 30.0  # longest time that a new replica stays unready for champions other than the default one


@dataclass(frozen=True, slots=True)
class Entry:
    """The state of one identifier in this replica. An entry is replaced and never changed."""

    identifier: str
    champion: Champion | None = None
    folder: Path | None = None
    """Folder that the champion was loaded from."""
    problem: str | None = None
    """Reason why the latest promotion is not served."""


class Champions:
    """The champions of this replica.

    Parameters
    ----------
    cache : ChampionCache
    metrics : Metrics
    default_identifier : str, optional
        ``IDENTIFIER``: its champion answers requests that name no identifier.
    max_loaded : int
        Most champions in memory.
    max_horizon_steps : int
    history_enable : bool
        ``HISTORY_ENABLE``: forecast from stored rows.
    """

    def __init__(
        self,
        cache: ChampionCache,
        metrics: Metrics,
        *,
        default_identifier: str | None,
        max_loaded: int,
        max_horizon_steps: int,
        history_enable: bool = True,
    ) -> None:
        self._cache = cache
        self._metrics = metrics
        self._default_identifier = default_identifier
        self._max_loaded = max_loaded
        self._max_horizon_steps = max_horizon_steps
        self._having_history = partial(having_history, cache, enable=history_enable)
        self._entries: dict[str, Entry] = {}
        self._waiting: frozenset[str] = frozenset()
        self._gone: frozenset[str] = frozenset()
        """Deleted identifiers: a request for one is answered 404, also if no champion is left."""
        self._used: dict[str, float] = {}
        self._untried: frozenset[str] = frozenset()
        """Identifiers of the first list that neither were loaded nor have failed to load."""
        self._listed_at: float | None = None
        self._changing = threading.RLock()
        self._frozen = False
        begin_at_zero(metrics.model_load, MODEL_LOAD_OUTCOMES)
        self.known = False
        """Whether the list of pointers was read, from the store or from this replica's disk."""

    def resolve(self, identifier: str | None) -> str:
        """Return the identifier whose champion answers a request.

        Raises
        ------
        RetryableError
            ``no_champion`` (503): the identifier has no champion yet, or the list of pointers was not read yet.
        NotFoundError
            The identifier of the request is unknown.
        RejectedError
            ``identifier_needed``: the request names no identifier, and there are several.
        """
        entries = self._entries
        if identifier is not None:
            if identifier in entries:
                return identifier
            check_identifier(identifier)
            if not self.known:
                raise _not_known()
            if identifier in self._waiting or (not entries and identifier not in self._gone):
                raise _no_champion(identifier)
            msg = f"there is no identifier {identifier}; there are {_shown(entries)}"
            if not entries:
                msg = f"there is no identifier {identifier} any more, and no other"
            raise NotFoundError(msg, code="unknown_identifier", field="identifier")
        default = self.default()
        if default is not None:
            return default
        if not entries:
            raise _no_champion(self._default_identifier) if self.known else _not_known()
        msg = f"name the identifier; there are {_shown(entries)}"
        raise RejectedError(msg, code="identifier_needed", field="identifier")

    def default(self) -> str | None:
        """Return the identifier for requests without one: ``IDENTIFIER``, else global, else the only one, else None."""
        entries = self._entries
        for name in (self._default_identifier, GLOBAL_IDENTIFIER):
            if name is not None and name in entries:
                return name
        return next(iter(entries)) if len(entries) == 1 else None

    def loaded(self, identifier: str) -> Champion | None:
        """Return an identifier's champion if it is in memory, and record the time of this use."""
        entry = self._entries.get(identifier)
        if entry is None or entry.champion is None:
            return None
        self._used[identifier] = time.monotonic()
        return entry.champion

    def load(self, identifier: str) -> Champion:
        """Return an identifier's champion; load it from disk, which blocks, if it is not in memory.

        Raises
        ------
        RetryableError
            ``champion_unavailable`` (503): its bundle is not on disk yet, or cannot be loaded.
        """
        with self._changing:
            champion = self.loaded(identifier)
            if champion is not None:
                return champion
            if identifier in self._entries:
                self._load_latest(identifier)
            champion = self.loaded(identifier)
            if champion is None:
                entry = self._entries.get(identifier)
                reason = (entry and entry.problem) or "its bundle is on its way"
                msg = f"the champion of {identifier} cannot serve: {reason}"
                raise RetryableError(
                    msg, code="champion_unavailable", field="identifier", retry_after_seconds=RETRY_AFTER_SECONDS
                )
            return champion

    def read_disk(self) -> None:
        """Read the list that an earlier process wrote, without loading a champion."""
        pointers = self._cache.pointers()
        with self._changing:
            self._cache.remove_unfinished()
            listed = None if pointers is None else set(pointers.champions)
            found = [
                identifier
                for identifier in self._cache.identifiers()
                if self._cache.folders(identifier) and (listed is None or identifier in listed)
            ]
            self._entries = {identifier: Entry(identifier) for identifier in found}
            for identifier in listed or ():
                self._entries.setdefault(identifier, Entry(identifier))
            self._waiting = frozenset(pointers.waiting if pointers else ())
            if pointers is not None:
                self._listed()

    def load_from_disk(self) -> None:
        """Load the champions that `read_disk` found: the default one first, at most ``max_loaded``."""
        found = sorted(self._entries, key=lambda name: name != self.default())
        on_disk = {identifier for identifier in found if self._cache.folders(identifier)}
        for identifier in found[: self._max_loaded]:
            with self._changing:
                if self.loaded(identifier) is None and identifier in self._entries:
                    self._load_latest(identifier)
        self._untried -= on_disk
        self._report()

    def list_changed(self, champions: Iterable[str], waiting: Iterable[str]) -> None:
        """Adopt the store's list, and drop the champions whose pointers were removed."""
        pointers = Pointers(tuple(sorted(champions)), tuple(sorted(waiting)))
        with self._changing:
            for identifier in set(self._entries) - set(pointers.champions):
                self._drop(identifier, waiting=identifier in pointers.waiting)
            self._gone -= {*pointers.champions, *pointers.waiting}
            entries = dict(self._entries)
            for identifier in pointers.champions:
                entries.setdefault(identifier, Entry(identifier))
            self._entries = entries
            self._waiting = frozenset(pointers.waiting)
            self._listed()
            self._keep_list()
        self._report()

    def fetched(self, identifier: str, folder_name: str) -> bool:
        """Load a promotion that the fetching child put on disk, and swap; return whether the latest one can be served.

        If ``max_loaded`` other champions are in memory, the bundle stays on disk until a request needs it.
        """
        with self._changing:
            entry = self._entries.setdefault(identifier, Entry(identifier))
            self._waiting -= {identifier}
            self._gone -= {identifier}
            self._keep_list()
            count = sum(other.champion is not None for other in self._entries.values())
            serving = (
                entry.folder is not None and entry.folder.name == folder_name and self._serves(entry, entry.folder)
            )
            full = entry.champion is None and count >= self._max_loaded and identifier != self.default()
            if serving or full:
                self._entries[identifier] = replace(self._with_history(entry), problem=None)
            else:
                self._load_latest(identifier)
            self._untried -= {identifier}
            return self._entries[identifier].problem is None

    def failed(self, identifier: str, reason: str) -> None:
        """Record that the latest promotion could not be fetched; the old champion stays."""
        self._metrics.model_load.labels("fetch_failed").inc()
        log.warning("model_load_failed", identifier=identifier, error=reason)
        with self._changing:
            entry = self._entries.get(identifier, Entry(identifier))
            self._entries[identifier] = replace(entry, problem=reason)
            self._untried -= {identifier}

    def removed(self, identifier: str, *, waiting: bool) -> None:
        """Record that an identifier, which a message named, has no pointer.

        Parameters
        ----------
        waiting : bool
            Whether it has runs, which may promote a model. Without runs it was deleted.
        """
        with self._changing:
            self._waiting = self._waiting | {identifier} if waiting else self._waiting - {identifier}
            if waiting:
                self._gone -= {identifier}
            if identifier in self._entries or not waiting:
                self._drop(identifier, waiting=waiting)
            self._untried -= {identifier}
            self._keep_list()
        self._report()

    def ready(self) -> bool:
        """Return whether this replica can take requests.

        A new replica first loads the champions of the first list that it reads, for at most FIRST_CHAMPIONS_SECONDS,
        because another replica can serve them meanwhile. After that it is ready as long as the default champion, if
        there is one, is in memory. An identifier that is promoted later does not make it unready.
        """
        entries, default = self._entries, self.default()
        if self._listed_at is None or (default is not None and entries[default].champion is None):
            return False
        untried = [name for name in self._untried if name in entries and entries[name].champion is None]
        return not untried or time.monotonic() - self._listed_at >= FIRST_CHAMPIONS_SECONDS

    def describe(self) -> list[dict[str, Any]]:
        """Return all champions, as ``GET /models`` lists them."""
        listed = []
        for identifier, entry in sorted(self._entries.items()):
            described: dict[str, Any] = {"identifier": identifier}
            if entry.champion is not None:
                described = {**entry.champion.promotion.describe(), **entry.champion.describe()}
            else:
                promotion = self._promotion_on_disk(identifier)
                described = {"identifier": identifier} if promotion is None else promotion.describe()
            listed.append({**described, "loaded": entry.champion is not None, "problem": entry.problem})
        return listed

    def _listed(self) -> None:
        """Record that a list of champions was read. The first one states which champions a new replica waits for."""
        if self._listed_at is None:
            self._untried = frozenset(self._entries)
            self._listed_at = time.monotonic()
        self.known = True

    def _keep_list(self) -> None:
        """Write the list to disk for the next start, unless no list was read yet."""
        pointers = Pointers(tuple(sorted(self._entries)), tuple(sorted(self._waiting)))
        if self.known and self._cache.pointers() != pointers:
            self._cache.put_pointers(pointers)

    def _drop(self, identifier: str, *, waiting: bool) -> None:
        known = identifier in self._entries
        self._entries = {name: entry for name, entry in self._entries.items() if name != identifier}
        self._used.pop(identifier, None)
        self._cache.drop(identifier)
        if not waiting:
            # No run of the identifier is left: its data set was deleted. Its log lines on disk, which wait for the
            # store, are dropped.
            self._gone |= {identifier}
            self._cache.drop_logs(identifier)
        if known:
            log.info("model_dropped", identifier=identifier)

    def _promotion_on_disk(self, identifier: str) -> Promotion | None:
        for folder in reversed(self._cache.folders(identifier)):
            try:
                return self._cache.read_promotion(identifier, folder)
            except RejectedError:
                continue
        return None

    def _load_latest(self, identifier: str) -> None:
        """Load the latest promotion on disk whose bundle loads and answers its probe, and swap to it.

        A bundle that fails is removed, so that the fetching child downloads it again.
        """
        entry = self._entries[identifier]
        folders = self._cache.folders(identifier)
        # Without a bundle on disk there is nothing to load, so the last problem stays visible until the next bundle
        # arrives.
        problem = None if folders else entry.problem
        for folder in reversed(folders):
            if self._serves(entry, folder):
                # The loop began with the newest bundle, and none that is newer than the serving champion is usable.
                # That champion stays.
                break
            try:
                champion = self._load(identifier, folder)
            except FltsError as error:
                self._metrics.model_load.labels("failed").inc()
                log.warning("model_load_failed", identifier=identifier, error=error)
                problem = problem or error.message
                self._cache.drop_folder(folder)
                continue
            entry = Entry(identifier, champion, folder)
            break
        self._used[identifier] = time.monotonic()
        reached("swap.before", identifier)
        self._entries[identifier] = replace(entry, problem=problem)  # requests after this line use the new champion
        reached("swap.after", identifier)
        if problem is None and entry.folder is not None:
            self._cache.keep_only(entry.folder)
        self._let_go()
        self._report()

    def _serves(self, entry: Entry, folder: Path) -> bool:
        """Return whether an entry's champion is the one of a folder, at the stage that the folder's pointer states."""
        champion = entry.champion
        return champion is not None and folder == entry.folder and self._cache.stage(folder) == champion.promotion.stage

    def _load(self, identifier: str, folder: Path) -> Champion:
        promotion = self._cache.read_promotion(identifier, folder)
        with bind(
            identifier=identifier,
            run_id=promotion.run_id,
            model_type=promotion.model_type,
            pipeline_run_id=promotion.pipeline_run_id,
            config_hash=promotion.config_hash,
        ):
            started = time.perf_counter()
            log.info("model_load_start")
            bundle, model = self._cache.read_bundle(promotion, folder)
            champion = load_champion(promotion, bundle, model, max_horizon_steps=self._max_horizon_steps)
            champion = self._having_history(champion, folder)
            self._metrics.model_load.labels("success").inc()
            begin_at_zero(self._metrics.predict_latency, [champion.bundle.model_type])
            log.info(
                "model_load_success",
                stage=promotion.stage,
                duration_seconds=round(time.perf_counter() - started, 4),
                rows_required=champion.needs.rows_required,
                window_seconds=champion.row_seconds,
            )
        if not self._frozen:
            # The objects that exist after the first champion is loaded are long-lived. gc.freeze excludes them from
            # garbage collections, which are then shorter.
            self._frozen = True
            gc.freeze()
        return champion

    def _with_history(self, entry: Entry) -> Entry:
        """Return an entry whose champion has its history, if the fetching child has added it to the cache."""
        champion = entry.champion
        if champion is None or entry.folder is None or isinstance(champion.history, History):
            return entry
        return replace(entry, champion=self._having_history(champion, entry.folder))

    def _let_go(self) -> None:
        loaded = [name for name, entry in self._entries.items() if entry.champion is not None]
        default = self.default()
        spare = sorted((name for name in loaded if name != default), key=lambda name: self._used.get(name, 0.0))
        for name in spare[: max(0, len(loaded) - self._max_loaded)]:
            self._entries[name] = replace(self._entries[name], champion=None, folder=None)

    def _report(self) -> None:
        champions = [entry.champion for entry in self._entries.values() if entry.champion is not None]
        self._metrics.champions.set(len(self._entries))
        ages = [_age(champion.promotion.document.get("timestamp")) for champion in champions]
        self._metrics.champion_age.set(max((age for age in ages if age is not None), default=0))
        coverages = [champion.promotion.document.get("coverage") for champion in champions]
        numbers = [coverage for coverage in coverages if isinstance(coverage, int | float)]
        if numbers:
            self._metrics.champion_coverage.set(min(numbers))


def _age(timestamp: object) -> float | None:
    try:
        promoted = datetime.fromisoformat(str(timestamp))
    except ValueError:
        return None
    aware = promoted if promoted.tzinfo else promoted.replace(tzinfo=UTC)
    return (datetime.now(UTC) - aware).total_seconds()


def _shown(entries: Iterable[str]) -> str:
    names = sorted(entries)
    return ", ".join(names[:SHOWN_IDENTIFIERS]) + (", ..." if len(names) > SHOWN_IDENTIFIERS else "")


def _no_champion(identifier: str | None) -> RetryableError:
    whose = f"{identifier} has" if identifier else "there is"
    msg = f"{whose} no champion yet; one is served as soon as a run promotes it"
    return RetryableError(msg, code="no_champion", retry_after_seconds=RETRY_AFTER_SECONDS)


def _not_known() -> RetryableError:
    msg = "this replica does not know the champions yet: its disk holds none and the store has not answered"
    return RetryableError(msg, code="no_champion", retry_after_seconds=RETRY_AFTER_SECONDS)
