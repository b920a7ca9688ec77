"""Read the table of a claim check, and verify it against the claim."""

from __future__ import annotations

from flts.contracts.claim_check import ClaimCheck
from flts.errors import RejectedError
from flts.forecasting.recipe import Features
from flts.forecasting.series import Series
from flts.storage.claims import read_claimed
from flts.storage.frames import features_from_parquet, parquet_shape, series_from_parquet
from flts.storage.ports import ObjectStore


def read_claimed_features(store: ObjectStore, claim: ClaimCheck) -> Features:
    """Return the features behind a claim, whose hash, rows and columns are checked.

    Raises
    ------
    HashMismatchError
        If the bytes or the table's shape are not the ones claimed.
    """
    data = read_claimed(store, claim)
    _check_shape(claim, data)
    return features_from_parquet(data)


def read_claimed_series(store: ObjectStore, claim: ClaimCheck) -> Series:
    """Return the raw series behind a claim; raises as `read_claimed_features`."""
    data = read_claimed(store, claim)
    _check_shape(claim, data)
    return series_from_parquet(data)


def _check_shape(claim: ClaimCheck, data: bytes) -> None:
    rows, columns = parquet_shape(data)
    for what, found, claimed in (("rows", rows, claim.rows), ("columns", columns, claim.columns)):
        if claimed is not None and found != claimed:
            msg = f"{claim.bucket}/{claim.object_key} has {found} {what}, its claim says {claimed}"
            raise RejectedError(msg, code="claim_shape", field=what)
