"""The handler of preprocess: it turns one upload into a stored data set and announces it by two events."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from flts.contracts.events import Event, InferenceData, RawData, TrainingData
from flts.contracts.ids import derived_event_id
from flts.contracts.lifecycle import RunState
from flts.errors import FltsError, HashMismatchError, ObjectNotFoundError, RejectedError
from flts.forecasting.grid import Grid
from flts.ingest.enough_rows import check_enough_rows, horizon_of
from flts.ingest.layout import lay_out
from flts.ingest.table import RawTable
from flts.observability.logs import get_logger
from flts.observability.process import rss_bytes
from flts.runtime.adapters import Adapters
from flts.service import Progress
from preprocess_container.dataset_store import BROKEN, DatasetStore, StoredDataset
from preprocess_container.domain.config_hash import config_hash, recipe_values
from preprocess_container.domain.dataset import Dataset, make_dataset
from preprocess_container.raw_files import read_raw
from preprocess_container.settings import PreprocessSettings

STAGE = "preprocess"
SAMPLED = (("train", "sample_train_rows"), ("test", "sample_test_rows"))

log = get_logger(__name__)


class PreprocessUpload:
    """Handles ``raw-data``: reads the files, makes the data set unless it is stored, announces it."""

    def __init__(
        self,
        adapters: Adapters,
        settings: PreprocessSettings,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = adapters.store
        self._forecasts = adapters.run_store.forecasts
        self._runs = adapters.run_store.runs
        self._stages = adapters.run_store.stages
        self._metrics = adapters.metrics
        self._settings = settings
        self._datasets = DatasetStore(adapters.store, settings.bucket_processed_data)
        self._now = now

    def __call__(self, event: RawData, progress: Progress) -> Sequence[Event]:
        """Preprocess one upload.

        Raises
        ------
        RejectedError
            If the upload cannot be trained on; the run then ends as rejected. If a stored object is missing or differs
            from its claim check, the run stays open.
        """
        ended = self._runs.end(event.identifier, event.pipeline_run_id)
        if ended is not None:
            # The run was cancelled before preprocessing, or a repeated event arrived after the run's end. The outcome
            # stays, and preprocess does nothing.
            log.info("preprocess_skipped", reason=f"the run has ended: {ended}")
            return []
        began = self._now()
        self._put_stage(event, "started", began)
        progress(STAGE, "started")
        try:
            with self._metrics.preprocess_duration.time():
                made = self._make(event, progress)
        except RejectedError as error:
            self._reject(event, began, error)
            raise
        stored, digest, reused = made
        horizon = horizon_of(stored.usable, stored.recipe.grid, self._settings.with_overrides(event.settings))
        log.info("horizon", steps=horizon.steps, asked_steps=horizon.asked, note=horizon.note)
        self._metrics.datasets_preprocessed.labels(outcome="reused" if reused else "done").inc()
        training, inference = self._events(event, stored, digest, horizon.steps)
        # The event for the inference worker is also stored. The worker polls the store, so that it makes the forecast
        # even if the event is lost in Kafka.
        self._forecasts.put_inference(inference)
        self._put_stage(
            event,
            "done",
            began,
            config_hash=digest,
            reused=reused,
            train=stored.train,
            test=stored.test,
            raw_test=stored.raw_test,
            sampling=stored.sampling,
            test_sampling=stored.test_sampling,
        )
        progress(STAGE, "done")
        return [training, inference]

    def give_up(self, event: Event, error: FltsError | None, message: str) -> Sequence[Event]:
        """Record a failed last attempt, except after a rejection; the run stays open for a replay."""
        if not isinstance(error, RejectedError):
            self._metrics.datasets_preprocessed.labels(outcome="failed").inc()
            self._stages.put(
                event.identifier, event.pipeline_run_id, STAGE, "failed", code="failed", message=message[:2000]
            )
        return []

    def _make(self, event: RawData, progress: Progress) -> tuple[StoredDataset, str, bool]:
        settings = self._settings.with_overrides(event.settings)
        digest = self._digest(event, settings)
        reuses = not (event.force or settings.force_reprocess)
        stored = self._datasets.find(event.identifier, digest) if reuses else None
        if stored is not None and stored.regular:
            return self._reused(stored, digest, settings)
        progress(STAGE, "reading")
        train, test = self._download(event, settings)
        layout = lay_out(train, test, settings)
        if not layout.train.grid.is_plain:
            # The rows had to be read before their calendar, which is part of the hash, was known. A data set of the
            # same rows under the hash without it was made by a release that knew no calendars.
            digest = self._digest(event, settings, layout.train.grid)
            stored = self._datasets.find(event.identifier, digest) if reuses else None
        if stored is not None:
            return self._reused(stored, digest, settings)
        dataset = make_dataset(train, layout, settings, settings, tell=lambda step: progress(STAGE, step))
        del train, test, layout  # the raw rows are not needed any more, and storing needs memory
        _log_sampling(dataset, settings)
        if dataset.recipe.constants:
            log.info("constant_columns", columns=dataset.recipe.constants, config_hash=digest)
        if dataset.recipe.dropped:
            log.info("dropped_columns", columns=dataset.recipe.dropped, config_hash=digest)
        progress(STAGE, "storing")
        stored = self._datasets.save(
            event.identifier,
            digest,
            dataset,
            recipe_values=recipe_values(settings),
            raw={"train": event.train.sha256, "test": event.test.sha256 if event.test else None},
        )
        log.info("pipeline_done", config_hash=digest, rss_bytes=rss_bytes(), **_shapes(stored))
        return stored, digest, False

    def _digest(self, event: RawData, settings: PreprocessSettings, grid: Grid | None = None) -> str:
        test = event.test.sha256 if event.test else None
        return config_hash(settings, train_sha256=event.train.sha256, test_sha256=test, grid=grid)

    def _reused(
        self, stored: StoredDataset, digest: str, settings: PreprocessSettings
    ) -> tuple[StoredDataset, str, bool]:
        # An earlier run stored this data set and checked that it has enough rows for that run's windows. This run may
        # need longer windows, so the check is repeated.
        check_enough_rows(stored.usable, settings, split_share=stored.split_share)
        log.info("preprocess_skip_duplicate", config_hash=digest, **_shapes(stored))
        return stored, digest, True

    def _download(self, event: RawData, settings: PreprocessSettings) -> tuple[RawTable, RawTable | None]:
        tables: list[RawTable] = []
        for name, claim in (("train", event.train), ("test", event.test)):
            if claim is None:
                continue
            log.info("download_start", file=name, object_key=claim.object_key, size_bytes=claim.size)
            began = time.monotonic()
            like = tables[0].time_format if tables else None
            table = read_raw(self._store, claim, limits=settings, settings=settings, name=name, like=like)
            log.info(
                "download_done",
                file=name,
                rows=table.rows,
                columns=len(table.columns),
                rss_bytes=rss_bytes(),
                duration_seconds=round(time.monotonic() - began, 3),
            )
            tables.append(table)
        return tables[0], tables[1] if len(tables) > 1 else None

    def _events(
        self, event: RawData, stored: StoredDataset, digest: str, horizon_steps: int
    ) -> tuple[TrainingData, InferenceData]:
        shared = {
            "identifier": event.identifier,
            "pipeline_run_id": event.pipeline_run_id,
            "config_hash": digest,
            "created_at": self._now(),
            "test": stored.test,
            "raw_test": stored.raw_test,
            "raw_test_context_rows": stored.context_rows,
            "step_seconds": stored.recipe.step_seconds,
            "grid": None if stored.recipe.grid.is_plain else stored.recipe.grid.to_dict(),
            "horizon_steps": horizon_steps,
            "sampling": stored.sampling,
            "test_sampling": stored.test_sampling,
            "settings": event.settings,
            "force": event.force,
            "cause": event.cause,
        }
        training = TrainingData.model_validate(
            {
                **shared,
                **stored.train.model_dump(),
                "event_id": derived_event_id(event.event_id, "training-data"),
                "meta": stored.meta,
            }
        )
        inference = InferenceData.model_validate(
            {
                **shared,
                **stored.test.model_dump(),
                "event_id": derived_event_id(event.event_id, "inference-data"),
                "meta": stored.test_meta,
            }
        )
        return training, inference

    def _reject(self, event: RawData, began: datetime, error: RejectedError) -> None:
        self._metrics.datasets_preprocessed.labels(outcome="rejected").inc()
        details = {"code": error.code, "message": error.message, "field": error.field}
        self._put_stage(event, "failed", began, **details)
        if isinstance(error, ObjectNotFoundError | HashMismatchError) or error.code == BROKEN:
            # No outcome is written, so the run stays open: a replay of the dead letter succeeds once the store is
            # repaired.
            return
        self._runs.put_outcome(event.identifier, event.pipeline_run_id, RunState.REJECTED, stage=STAGE, **details)

    def _put_stage(self, event: RawData, status: Any, began: datetime, **details: Any) -> None:
        end = None if status == "started" else self._now()
        self._stages.put(event.identifier, event.pipeline_run_id, STAGE, status, began, end, **details)


def _shapes(stored: StoredDataset) -> dict[str, list[int | None]]:
    return {
        "train_shape": [stored.train.rows, stored.train.columns],
        "test_shape": [stored.test.rows, stored.test.columns],
    }


def _log_sampling(dataset: Dataset, settings: PreprocessSettings) -> None:
    done = {"train": dataset.sampling, "test": dataset.test_sampling}
    for part, setting in SAMPLED:
        sampling = done[part]
        if sampling is not None:
            log.info("sampling_applied", part=part, **sampling.model_dump())
        else:
            wanted = getattr(settings, setting)
            reason = "off" if wanted is None else f"{setting.upper()}={wanted} is not less than the rows there are"
            log.info("sampling_skipped", part=part, reason=reason)
