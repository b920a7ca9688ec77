"""Chooses the objects that the janitor may remove, by pure functions of a listing of the store."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from flts.storage import layout


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The facts about a pipeline run that the selection needs."""

    pipeline_run_id: str
    """UUIDv7, so ids are ordered by time."""
    finished: bool
    """Whether the run has an outcome and needs no more work."""
    config_hash: str | None
    """None until eval has recorded the run's training data."""
    created: float
    """Epoch seconds."""
    bundle_folders: frozenset[str] = frozenset()
    """Folders of the bundles that the run's records name."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The runs of one identifier to remove, and the artefacts that stay."""

    runs: tuple[str, ...]
    """Pipeline runs whose records are removed."""
    kept_configs: frozenset[str]
    """Configurations whose processed data stay."""
    kept_bundles: frozenset[str]
    """Folders of bundles that stay."""
    artefacts: bool
    """Whether artefacts may be removed: not while a young run has no configuration, since it may reuse any bundle."""


UNKNOWN_SECONDS = 86_400.0
"""Seconds; a run that has no configuration for longer counts as failed in preprocess. A replay makes its data again."""


def select_runs(
    runs: Iterable[RunFacts],
    *,
    now: float,
    retain_runs: int,
    pointed_runs: Collection[str],
    pointed_configs: Collection[str],
    pointed_bundles: Collection[str],
) -> Selection:
    """Choose the finished runs beyond the newest ``retain_runs`` that no pointer or predecessor names.

    Parameters
    ----------
    now : float
        Epoch seconds.
    pointed_runs, pointed_configs, pointed_bundles : collections
        The run ids, config hashes and bundle folders that pointers and their predecessors name.
    """
    ordered = sorted(runs, key=lambda run: run.pipeline_run_id, reverse=True)
    protected = set(pointed_runs)
    removed = tuple(
        run.pipeline_run_id
        for index, run in enumerate(ordered)
        if index >= retain_runs and run.finished and run.pipeline_run_id not in protected
    )
    kept = [run for run in ordered if run.pipeline_run_id not in set(removed)]
    return Selection(
        runs=removed,
        kept_configs=frozenset(pointed_configs) | {run.config_hash for run in kept if run.config_hash is not None},
        kept_bundles=frozenset(pointed_bundles).union(*(run.bundle_folders for run in kept)),
        artefacts=all(
            run.finished or run.config_hash is not None or now - run.created > UNKNOWN_SECONDS for run in kept
        ),
    )


def select_artefacts(
    objects: Mapping[str, float],
    selection: Selection,
    *,
    now: float,
    unfinished_configs: Collection[str] = (),
    min_age_seconds: float = 24 * 3600,
) -> tuple[str, ...]:
    """Choose the objects of data sets and bundles that no kept run and no pointer names.

    Parameters
    ----------
    objects : mapping
        Epoch seconds of the last change by key.
    unfinished_configs : collection
        Configurations of unfinished runs, whose objects stay: a trainer may reuse any bundle of them.
    min_age_seconds : float
        Younger objects stay, because the listing may be older than their run's record.
    """
    if not selection.artefacts:
        return ()
    busy = frozenset(unfinished_configs)
    chosen = []
    for key, modified in objects.items():
        config_hash, bundle = layout.config_of(key), layout.bundle_folder_of(key)
        kept = config_hash in selection.kept_configs if bundle is None else bundle in selection.kept_bundles
        if not kept and config_hash not in busy and now - modified >= min_age_seconds:
            chosen.append(key)
    return tuple(chosen)


def select_logs(keys: Iterable[str], *, today: date, retain_days: int) -> tuple[str, ...]:
    """Choose forecast logs older than ``retain_days``; a key without a date stays."""
    oldest = today - timedelta(days=retain_days)
    return tuple(key for key in keys if (day := layout.day_of(key)) is not None and day < oldest)
