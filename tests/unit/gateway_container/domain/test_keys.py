"""A key never reaches another bucket, whatever key a client requests."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flts.errors import RejectedError
from flts.storage.keys import check_key as store_check_key
from gateway_container.domain.keys import ForbiddenError, check_key, check_readable, incoming_target

NASTY = st.text(alphabet=st.one_of(st.sampled_from("/.\\%\0_-=a0\n\u202e~"), st.characters(codec="utf-8")), max_size=60)


@given(NASTY)
def test_a_key_that_is_let_through_stays_in_its_bucket(key: str) -> None:
    try:
        checked = check_key(key)
    except RejectedError:
        return
    assert checked == key
    assert not key.startswith(("/", "."))
    assert ".." not in PurePosixPath(key).parts
    assert key.isascii()
    assert key.isprintable()
    assert store_check_key(key) == key


@given(NASTY, st.sampled_from(["train.csv", "test.csv"]))
def test_an_upload_lands_only_where_uploads_land(identifier: str, name: str) -> None:
    try:
        target = incoming_target("raw-data", f"{identifier}/{name}", raw_bucket="raw-data")
    except RejectedError:
        return
    assert target.object_key == f"_incoming/{identifier}/{name}"
    assert "/" not in identifier


@pytest.mark.parametrize(
    "key",
    [
        "x/date=2024-01-01/part-0001.jsonl",
        "_incoming/x/train.csv",
        "PobleSec/" + "a" * 64 + "/processed_data.parquet",
        "a/b..c",
    ],
)
def test_keys_of_this_system_are_let_through(key: str) -> None:
    assert check_key(key) == key


def test_other_buckets_are_named_as_forbidden() -> None:
    with pytest.raises(ForbiddenError, match="forge"):
        incoming_target("model-promotion", "x/train.csv", raw_bucket="raw-data")
    with pytest.raises(ForbiddenError, match="raw-data, processed-data"):
        check_readable("model-bundles", readable=("raw-data", "processed-data"))
