"""A bad file is refused while it arrives, with the same result for every division into pieces."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flts.errors import RejectedError
from flts.ingest.guard import MAX_LINE_BYTES, TextGuard


def feed(*pieces: bytes) -> None:
    guard = TextGuard("train")
    for piece in pieces:
        guard.feed(piece)


@pytest.mark.parametrize("size", [1, 2, 5, 100])
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x28\xb5\x2f\xfd" + b"x" * 100, "not_csv"),
        (b"\xfd7zXZ\0" + b"x" * 100, "not_csv"),
        (b"time,a\n1,\0\n", "not_text"),
    ],
)
def test_what_is_no_text_is_refused_by_its_first_bytes(data: bytes, code: str, size: int) -> None:
    with pytest.raises(RejectedError) as refused:
        feed(*(data[at : at + size] for at in range(0, len(data), size)))
    assert refused.value.field == "train"
    assert refused.value.code in {code, "not_text"}, "xz's own magic ends with NUL"


@pytest.mark.parametrize("size", [1, 2, 5, 100])
@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(b"time,a\n1,2\n", mtime=0),
        b"PAR1" + b"\0" * 100,
        b"PK\x03\x04" + b"\0" * 100,
        "time,a\n1,2".encode("utf-16"),
        "time,a\n1,2".encode("utf-16-le"),
        "time,a\n1,2".encode("utf-16-be"),
    ],
)
def test_the_readable_formats_may_contain_any_byte(data: bytes, size: int) -> None:
    feed(*(data[at : at + size] for at in range(0, len(data), size)))


def endless(cell: bytes) -> tuple[int, str]:
    """Return the number of bytes after which an unterminated line is refused, and the error code."""
    guard = TextGuard("train")
    for taken in range(1 << 16, 10 * MAX_LINE_BYTES, 1 << 16):
        try:
            guard.feed(cell * ((1 << 16) // len(cell)))
        except RejectedError as refused:
            return taken, refused.code
    pytest.fail("it was never refused")


@pytest.mark.parametrize("cell", [b"9", b'"', b"1,"])
def test_a_line_without_an_end_is_given_up_after_a_megabyte(cell: bytes) -> None:
    taken, code = endless(cell)

    assert taken <= MAX_LINE_BYTES + (1 << 16)
    assert code == ("too_many_columns" if b"," in cell else "line_too_long")


def test_a_long_line_is_found_where_it_ends_too() -> None:
    with pytest.raises(RejectedError, match="longer than"):
        feed(b"time,a\n1,", b"9" * (MAX_LINE_BYTES - 1), b"9\n3,4\n")
    feed(b"time,a\n1,", b"9" * (MAX_LINE_BYTES - 100), b"\n", b"9" * (MAX_LINE_BYTES - 100), b"\n")


@given(st.text(alphabet='time,123\r\n "é', max_size=300), st.lists(st.integers(1, 20), min_size=1, max_size=20))
def test_short_lines_of_text_pass_in_pieces_of_any_size(text: str, sizes: list[int]) -> None:
    data, guard, at = text.encode(), TextGuard("train"), 0
    while at < len(data):
        size = sizes[at % len(sizes)]
        guard.feed(data[at : at + size])
        at += size
    assert at >= len(data)
