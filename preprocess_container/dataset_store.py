"""Data sets in the bucket processed-data: written once under their config_hash, and verified before the event."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import Sampling
from flts.contracts.ids import canonical_json
from flts.errors import FltsError, HashMismatchError, ObjectNotFoundError, RejectedError, RetryableError
from flts.forecasting.recipe import Features, FittedRecipe
from flts.ingest.enough_rows import UsableRows
from flts.observability.logs import get_logger
from flts.storage import layout
from flts.storage.claims import put_claimed, read_claimed
from flts.storage.frames import features_to_parquet, parquet_shape, series_to_parquet
from flts.storage.ports import ObjectStore
from preprocess_container.domain.dataset import Dataset

FORMAT_VERSION = 1
BROKEN = "stored_dataset_broken"
"""Error code of a data set whose stored objects do not belong together; it is not announced."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StoredDataset:
    """A stored data set whose objects were verified."""

    train: ClaimCheck
    test: ClaimCheck
    raw_test: ClaimCheck
    meta: ClaimCheck
    test_meta: ClaimCheck
    recipe: FittedRecipe
    context_rows: int
    sampling: Sampling | None
    test_sampling: Sampling | None
    usable: UsableRows
    split_share: float | None
    regular: bool
    """Whether no training row is missing, so that the step is fixed."""


class DatasetStore:
    """Reads and writes data sets in the object store.

    Parameters
    ----------
    store, bucket
        The object store and the name of its bucket of processed data.
    """

    def __init__(self, store: ObjectStore, bucket: str) -> None:
        self._store = store
        self._bucket = bucket

    def find(self, identifier: str, config_hash: str) -> StoredDataset | None:
        """Return the finished data set of this hash, every byte of it checked, or None."""
        key = layout.TRAIN_META(identifier, config_hash)
        try:
            data, _ = self._store.get(self._bucket, key)
        except ObjectNotFoundError:
            return None  # preprocess writes this object last, so without it the data set is incomplete
        try:
            return self._read(key, data)
        except RetryableError:
            raise
        except (FltsError, ValueError, KeyError, TypeError) as error:
            log.warning("stored_dataset_broken", object_key=key, error=str(error))
            return None

    def save(
        self, identifier: str, config_hash: str, dataset: Dataset, *, recipe_values: dict[str, Any], raw: dict[str, Any]
    ) -> StoredDataset:
        """Write a data set, with the description of the training rows last, and return the stored data set.

        Every object is create-only: an existing object stays, and a difference is counted. A repeat after a kill at any
        line writes the same bytes.

        Raises
        ------
        RejectedError
            `BROKEN` if the stored objects of this hash do not form a whole data set.
        """
        train = self._put(identifier, config_hash, layout.TRAIN_ROWS, features_to_parquet(dataset.train))
        test = self._put(identifier, config_hash, layout.TEST_ROWS, features_to_parquet(dataset.test))
        raw_test = self._put(identifier, config_hash, layout.RAW_TEST_ROWS, series_to_parquet(dataset.raw_test))
        shared = {
            "format_version": FORMAT_VERSION,
            "identifier": identifier,
            "config_hash": config_hash,
            "settings": recipe_values,
            "raw": raw,
            "recipe": dataset.recipe.to_dict(),
            "feature_names": list(dataset.recipe.feature_names),
            "step_seconds": dataset.recipe.step_seconds,
        }
        test_meta = self._put(
            identifier,
            config_hash,
            layout.TEST_META,
            canonical_json(
                {
                    **shared,
                    **_describe(dataset.test, test, dataset.test_sampling),
                    "raw_data": raw_test.model_dump(),
                    "context_rows": dataset.context_rows,
                }
            ),
        )
        self._put(
            identifier,
            config_hash,
            layout.TRAIN_META,
            canonical_json(
                {
                    **shared,
                    **_describe(dataset.train, train, dataset.sampling),
                    "test_meta": test_meta.model_dump(),
                    "usable": asdict(dataset.usable),
                    "split_share": dataset.split_share,
                    "report": dataset.report,
                }
            ),
        )
        stored = self.find(identifier, config_hash)
        if stored is None:
            raise self._broken(identifier, config_hash)
        return stored

    def _put(self, identifier: str, config_hash: str, kind: layout.Key, data: bytes) -> ClaimCheck:
        key = kind(identifier, config_hash)
        rows, columns = parquet_shape(data) if key.endswith(".parquet") else (None, None)
        try:
            return put_claimed(self._store, self._bucket, key, data, rows=rows, columns=columns)
        except RejectedError as error:  # an object is already stored under the key and is not a table
            raise self._broken(identifier, config_hash) from error

    def _broken(self, identifier: str, config_hash: str) -> RejectedError:
        folder = layout.below(identifier, config_hash)
        msg = f"{self._bucket}/{folder} holds objects that belong to no whole data set: remove the folder"
        return RejectedError(msg, code=BROKEN)

    def _read(self, key: str, data: bytes) -> StoredDataset:
        meta = json.loads(data)
        test_meta_claim = ClaimCheck.model_validate(meta["test_meta"])
        test_meta = json.loads(read_claimed(self._store, test_meta_claim))
        if {meta["format_version"], test_meta["format_version"]} != {FORMAT_VERSION}:
            msg = f"{key} has another format version than {FORMAT_VERSION}"
            raise RejectedError(msg, code="format_version")
        return StoredDataset(
            train=self._check(meta["data"]),
            test=self._check(test_meta["data"]),
            raw_test=self._check(test_meta["raw_data"]),
            meta=_claim_of(self._bucket, key, data),
            test_meta=test_meta_claim,
            recipe=FittedRecipe.from_dict(meta["recipe"]),
            context_rows=int(test_meta["context_rows"]),
            sampling=_sampling(meta["sampling"]),
            test_sampling=_sampling(test_meta["sampling"]),
            usable=UsableRows(**{**meta["usable"], **_tuples(meta["usable"])}),
            split_share=meta["split_share"],
            regular=meta["report"]["train"]["gap_count"] == 0,
        )

    def _check(self, claimed: dict[str, Any]) -> ClaimCheck:
        """Return a table's claim check after comparing the stored bytes and their shape with it."""
        claim = ClaimCheck.model_validate(claimed)
        shape = parquet_shape(read_claimed(self._store, claim))
        if shape != (claim.rows, claim.columns):
            msg = f"{claim.object_key} has shape {shape}, its claim says {(claim.rows, claim.columns)}"
            raise HashMismatchError(msg)
        return claim


def _describe(features: Features, claim: ClaimCheck, sampling: Sampling | None) -> dict[str, Any]:
    return {
        "data": claim.model_dump(),
        "segments": [[piece.start, piece.stop] for piece in features.segments()],
        "imputed_cells": int(features.imputed.sum()),
        "sampling": sampling.model_dump() if sampling is not None else None,
    }


def _sampling(values: dict[str, Any] | None) -> Sampling | None:
    return Sampling.model_validate(values) if values is not None else None


def _tuples(values: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value) for name, value in values.items() if isinstance(value, list)}


def _claim_of(bucket: str, key: str, data: bytes) -> ClaimCheck:
    return ClaimCheck(bucket=bucket, object_key=key, size=len(data), sha256=hashlib.sha256(data).hexdigest())
