from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flts.errors import RejectedError
from flts.storage.keys import bucket_name, check_key, check_prefix


@given(st.text(alphabet="ab./\\\0 é", max_size=12))
def test_a_key_that_is_accepted_names_one_place_inside_its_bucket(key: str) -> None:
    try:
        check_key(key)
    except RejectedError:
        return

    path = PurePosixPath("/bucket") / key
    assert str(path) == f"/bucket/{key}"
    assert ".." not in path.parts


@pytest.mark.parametrize("key", ["a", "a/b.c", "..a/b..", ".hidden", "x" * 255, "a b/ü"])
def test_ordinary_keys_are_accepted_as_they_are(key: str) -> None:
    assert check_key(key) == key


def test_a_prefix_may_be_empty_or_end_anywhere() -> None:
    assert [check_prefix(prefix) for prefix in ("", "a/", "a/b", "a")] == ["", "a/", "a/b", "a"]
    for prefix in ("/", "../", "a//", "/a"):
        with pytest.raises(RejectedError):
            check_prefix(prefix)


def test_the_prefix_of_an_installation_cannot_make_a_bucket_of_what_is_none() -> None:
    assert bucket_name("Two-", "raw-data") == "two-raw-data"
    with pytest.raises(RejectedError, match="bucket"):
        bucket_name("two", "/raw-data")
