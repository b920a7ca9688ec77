"""The result of a form does not depend on how the body is divided into pieces."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flts.errors import FltsError, RejectedError
from gateway_container.receive import ReceivedForm, receive_bytes, receive_form

CONTENT_TYPE = "multipart/form-data; boundary=xyz"


def form(train: bytes, force: str = "true") -> bytes:
    return (
        b'--xyz\r\nContent-Disposition: form-data; name="train"; filename="../../x"\r\n'
        b"Content-Type: text/csv\r\n\r\n" + train + b"\r\n"
        b'--xyz\r\nContent-Disposition: form-data; name="force"\r\n\r\n' + force.encode() + b"\r\n--xyz--\r\n"
    )


def receive(pieces: list[bytes], folder: Path, *, limit: int = 10_000) -> ReceivedForm:
    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return asyncio.run(
        receive_form(
            stream(),
            CONTENT_TYPE,
            folder,
            file_fields=frozenset({"train"}),
            text_fields=frozenset({"force"}),
            limit=limit,
            idle_seconds=5,
        )
    )


def cut(body: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:stop] for start, stop in pairwise(edges)]


@settings(max_examples=50, deadline=None)
@given(
    st.binary(max_size=300)
    .filter(lambda data: b"--xyz" not in data)
    .map(lambda data: b"," + data.replace(b"\0", b".")),
    st.lists(st.integers(0, 10_000), max_size=20),
)
def test_pieces_do_not_matter(train: bytes, places: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        received = receive(cut(form(train), places), Path(folder))

        assert received.fields == {"force": "true"}
        assert received.files["train"].path.read_bytes() == train
        assert received.files["train"].size == len(train)
        assert received.files["train"].sha256 == hashlib.sha256(train).hexdigest()
        assert [path.name for path in Path(folder).iterdir()] == ["train"]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 10_000))
def test_a_form_cut_off_anywhere_is_refused(place: int) -> None:
    body = form(b"a,b\n1,2\n")
    end = body.rindex(b"--xyz--") + len(b"--xyz-")
    with tempfile.TemporaryDirectory() as folder, pytest.raises(RejectedError):
        receive([body[: place % end]], Path(folder))


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=500))
def test_noise_is_refused_and_nothing_else_happens(noise: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.raises(FltsError):
        receive([noise], Path(folder))


@pytest.mark.parametrize(("size", "fits"), [(1000, True), (1001, False)])
def test_the_limit_is_exact(tmp_path: Path, size: int, fits: bool) -> None:
    if fits:
        assert receive([form(b"x" * size)], tmp_path, limit=1000).files["train"].size == size
        return
    with pytest.raises(FltsError) as caught:
        receive([form(b"x" * size)], tmp_path, limit=1000)
    assert (caught.value.code, caught.value.field) == ("too_large", "train")


def test_a_small_body_has_a_limit() -> None:
    async def stream() -> AsyncIterator[bytes]:
        yield b"12345"
        yield b"67890"

    def read(limit: int) -> bytes:
        return asyncio.run(receive_bytes(stream(), limit=limit, idle_seconds=5, field_name="data", setting="LIMIT"))

    assert read(10) == b"1234567890"
    with pytest.raises(FltsError, match="LIMIT"):
        read(9)
