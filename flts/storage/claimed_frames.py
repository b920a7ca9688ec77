"""Read the table that a claim check names, and verify its hash and its shape."""

from __future__ import annotations

from flts.contracts.claim_check import ClaimCheck
from flts.errors import RejectedError
from flts.forecasting.recipe import Features
from flts.forecasting.series import Series
from flts.storage.claims import read_claimed
from flts.storage.frames import features_from_parquet, parquet_shape, series_from_parquet
from flts.storage.ports import ObjectStore


def read_claimed_features(store: ObjectStore, claim: ClaimCheck) -> Features:
    """Return the features that a claim check names, after a check of hash, rows and columns.

    Raises
    ------
    HashMismatchError
        If the size or hash of the object differs from the claim check.
    RejectedError
        ``claim_shape`` if the number of rows or columns differs; ``bad_table`` if the object is not such a table.
    """
    data = read_claimed(store, claim)
    _check_shape(claim, data)
    return features_from_parquet(data)


def read_claimed_series(store: ObjectStore, claim: ClaimCheck) -> Series:
    """Return the raw series that a claim check names; raises as `read_claimed_features`."""
    data = read_claimed(store, claim)
    _check_shape(claim, data)
    return series_from_parquet(data)


def _check_shape(claim: ClaimCheck, data: bytes) -> None:
    rows, columns = parquet_shape(data)
    for what, found, claimed in (("rows", rows, claim.rows), ("columns", columns, claim.columns)):
        if claimed is not None and found != claimed:
            msg = f"{claim.bucket}/{claim.object_key} has {found} {what}, its claim says {claimed}"
            raise RejectedError(msg, code="claim_shape", field=what)
