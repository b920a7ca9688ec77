"""The history of a champion, loaded from the cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from flts.errors import RejectedError
from flts.observability.logs import get_logger
from inference_container.cache import ChampionCache
from inference_container.domain.champion import Champion

log = get_logger(__name__)


def having_history(cache: ChampionCache, champion: Champion, folder: Path, *, enable: bool) -> Champion:
    """Return a champion with the history in its folder, or with the reason why it has none.

    Parameters
    ----------
    cache : ChampionCache
    champion : Champion
    folder : Path
        The folder of its bundle.
    enable : bool
        ``HISTORY_ENABLE``.
    """
    if not enable:
        return replace(champion, history="HISTORY_ENABLE is false")
    try:
        stored = cache.read_history(folder)
        if stored is None:
            return replace(champion, history="this replica has not read them yet")
        if isinstance(stored, str):
            return replace(champion, history=stored)
        return champion.with_history(stored.columns, stored.times, stored.values)
    except RejectedError as error:
        log.warning("history_damaged", identifier=champion.identifier, error=error)
        return replace(champion, history=error.message)
