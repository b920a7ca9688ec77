"""The records of runs, by subject. A record is one JSON object, written once unless its method states otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from flts.storage.evaluations import Evaluations
from flts.storage.forecasts import Forecasts
from flts.storage.leases import Leases
from flts.storage.pointers import Pointers
from flts.storage.records import Records
from flts.storage.runs import Runs
from flts.storage.stages import Stages
from flts.storage.tombstones import Tombstones

if TYPE_CHECKING:
    from flts.settings import StoreSettings
    from flts.storage.ports import ObjectStore


class RunStore:
    """The records of the runs of an installation.

    Parameters
    ----------
    store : ObjectStore
        A store that passed `flts.storage.checks`, so that its conditional puts work.
    settings : StoreSettings
        Contains the names of the buckets.
    clock : callable
        Returns epoch seconds.
    """

    def __init__(self, store: ObjectStore, settings: StoreSettings, *, clock: Callable[[], float] = time.time) -> None:
        records = Records(store, settings.bucket_pipeline_runs)
        self.runs = Runs(records, Tombstones(store, settings, clock=clock), clock)
        self.stages = Stages(records, clock)
        self.evaluations = Evaluations(records)
        self.forecasts = Forecasts(records, clock)
        self.pointers = Pointers(Records(store, settings.promotion_bucket))
        self.leases = Leases(records, clock)
