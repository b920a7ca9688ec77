"""The fetching child: `python -m inference_container.fetch` downloads champions to disk and uploads forecast logs.

The server imports neither boto3 nor pyarrow. Leaks and hangs of the store's client end with this child. The child stays
alive only after rounds that found nothing new and had no error, and only for a limited number of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flts import killpoints
from flts.contracts.champion_stage import PROVISIONAL
from flts.contracts.ids import IDENTIFIER_PATTERN
from flts.errors import BackendAwayError, FltsError, PreconditionFailedError, RejectedError
from flts.observability.logs import configure_logs, secret_values
from flts.storage.claims import read_claimed
from flts.storage.connect import open_store
from flts.storage.evaluations import Evaluations
from flts.storage.pointers import Pointers
from flts.storage.ports import ObjectStore
from flts.storage.run_store import RunStore
from inference_container.cache import ChampionCache
from inference_container.domain.promotion import Promotion
from inference_container.histories import Histories
from inference_container.protocol import (
    Away,
    Done,
    Fact,
    Failed,
    Fetched,
    Listed,
    Order,
    Removed,
    Shipped,
    decode_order,
    encode_fact,
)
from inference_container.settings import FetchSettings

SCORES = ("rmse", "mae", "mse", "coverage")
NICENESS = 5  # lower priority than the server in the same container, which answers requests
MOST_ROUNDS = 60
"""Rounds per child: one hour at the default POINTER_REFRESH_SECONDS, so that a leak cannot grow longer."""


def main() -> int:
    """Read orders from standard input, carry them out, and write each fact to standard output."""
    os.nice(NICENESS)
    settings = FetchSettings.load()
    configure_logs("inference-fetch", settings.log_level, secrets=secret_values(settings), stream=sys.stderr)
    if settings.kill_points is not None:
        killpoints.switch_on(settings.kill_points, "inference.child")
    store = open_store(settings, settings.namespace_prefix)

    def say(fact: Fact) -> None:
        try:
            sys.stdout.buffer.write(encode_fact(fact) + b"\n")
            sys.stdout.buffer.flush()
        except BrokenPipeError:  # the server, which reads this output, has ended, so the child ends too
            os._exit(1)

    cache = ChampionCache(settings.cache_dir)
    run_store = RunStore(store, settings)
    histories = Histories(store, settings.bucket_processed_data, cache) if settings.history_enable else None
    for rounds, line in enumerate(sys.stdin.buffer, 1):
        order = decode_order(line)
        idle = fetch_champions(store, run_store, settings.promotion_bucket, cache, order, say=say, histories=histories)
        if order.ship_logs:
            idle &= ship_logs(store, settings.bucket_inference_logs, cache, say)
        if histories is not None and order.only is None:
            # At the end of the round, so that a failure delays neither a champion nor the forecast logs.
            for identifier, folder in histories.add_missing():
                say(Fetched(identifier, folder))
                idle = False
        lasts = idle and rounds < MOST_ROUNDS
        say(Done(lasts))
        if not lasts:
            break
    return 0


def fetch_champions(
    store: ObjectStore,
    run_store: RunStore,
    bucket: str,
    cache: ChampionCache,
    order: Order,
    *,
    say: Callable[[Fact], None],
    histories: Histories | None = None,
) -> bool:
    """Download the promoted bundles that are not on disk yet; a failure of one does not stop the others.

    A new bundle gets its history before it is reported, so that its champion is not served without one. If the child is
    killed meanwhile, the next round finds the bundle on disk and reports it at once.

    Returns
    -------
    bool
        Whether no bundle had to be downloaded and nothing failed.
    """
    idle = True
    try:
        listed = order.only if order.only is not None else list(store.list_folders(bucket))
        # A folder whose name is not a valid identifier is left out, because identifiers become paths on this machine.
        identifiers = [name for name in listed if IDENTIFIER_PATTERN.fullmatch(name)]
        pointers, unreadable = _pointers(run_store.pointers, identifiers)
        # An identifier whose pointer could not be read now stays in the list, so that the server keeps the champion
        # that it has.
        champions = [name for name in identifiers if name in pointers or name in unreadable]
        if order.only is None:
            waiting = sorted(set(run_store.runs.identifiers()) - set(champions))
            say(Listed(champions, waiting))
        elif gone := set(identifiers) - set(champions):
            # Pointers of an unavailable bucket seem to be gone. This listing then raises an error, so that no champion
            # is removed.
            next(iter(store.list_folders(bucket)), None)
            for identifier in sorted(gone):
                say(Removed(identifier, waiting=bool(run_store.runs.of(identifier))))
    except BackendAwayError as error:
        say(Away("pointers", error.message))
        return False
    urgent = [identifier for identifier in order.first if identifier in champions]
    for identifier in dict.fromkeys([*urgent, *champions]):
        if identifier in order.skip:
            continue
        try:
            if identifier in unreadable:
                raise unreadable[identifier]
            folder, was_there = _fetch(store, run_store.evaluations, cache, identifier, pointers[identifier])
            if histories is not None and not was_there:
                histories.add(identifier, cache.path / identifier / folder)
            say(Fetched(identifier, folder))
            idle &= was_there
        except FltsError as error:
            say(Failed(identifier, error.code, error.message))
            idle = False
    return idle


def ship_logs(store: ObjectStore, bucket: str, cache: ChampionCache, say: Callable[[Fact], None]) -> bool:
    """Upload each waiting file as a new object, then remove the file; an existing object is not written again.

    Returns
    -------
    bool
        Whether every waiting file is in the store.
    """
    shipped, taken = 0, True
    try:
        for path in sorted(cache.spool.rglob("*.jsonl")):
            with suppress(PreconditionFailedError):
                # An earlier child stored this file and ended before it removed the local copy. Only the copy is left to
                # remove.
                store.put_file(bucket, path.relative_to(cache.spool).as_posix(), path, create_only=True)
            path.unlink(missing_ok=True)
            shipped += 1
    except BackendAwayError as error:
        say(Away("logs", error.message))
        taken = False
    say(Shipped(shipped))
    return taken


def _pointers(stored: Pointers, identifiers: list[str]) -> tuple[dict[str, dict[str, Any]], dict[str, RejectedError]]:
    """Return the pointers that can be read, and the error of each one that cannot."""
    pointers: dict[str, dict[str, Any]] = {}
    unreadable: dict[str, RejectedError] = {}
    for identifier in identifiers:
        try:
            if (current := stored.current(identifier)) is not None:
                pointers[identifier] = current[0]
        except RejectedError as error:
            unreadable[identifier] = error
    return pointers, unreadable


def _fetch(
    store: ObjectStore, evaluations: Evaluations, cache: ChampionCache, identifier: str, document: dict[str, Any]
) -> tuple[str, bool]:
    """Put a promotion into the cache; return its folder's name, and whether its bundle was there before."""
    promotion = Promotion.read(identifier, document)
    if cache.holds(promotion):
        return cache.folder(promotion).name, True
    # GET /models shows several figures of a champion. The pointer has only the score; the record of its stage has the
    # others. A refitted champion has those of the decision.
    record = evaluations.provisional if promotion.stage == PROVISIONAL else evaluations.decision
    figures = record(identifier, promotion.pipeline_run_id) or {}
    scores = {name: figures[name] for name in SCORES if isinstance(figures.get(name), int | float)}
    promotion = Promotion.read(identifier, {**scores, **document})
    if cache.has_bundle(promotion):
        return cache.put_pointer(promotion).name, True
    # Imported here and not at the top, because numpy would double the child's start-up time, and most rounds find no
    # new champion.
    from flts.bundle import proof  # noqa: PLC0415 - see above
    from flts.bundle.load import fetch_bundle  # noqa: PLC0415 - see above

    proof.warm_up()  # starts the process that tests the model, while the bundle is downloaded
    bundle, model = fetch_bundle(store, promotion.bundle)
    proof.prove(bundle, model)  # runs the model in a process of its own, because a crash must not end the server
    return cache.put_bundle(promotion, read_claimed(store, promotion.bundle), model).name, False


if __name__ == "__main__":
    raise SystemExit(main())
