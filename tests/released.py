"""Stores, queues and replica caches that released code wrote: ``tests/releases/<commit>.tar.xz``.

An archive contains

- ``store/<bucket>/<key>``: every object, with its modification time;
- ``inference/``: the cache folder of an inference replica;
- ``queue.jsonl``: one record per line, dead letters included: topic, key, headers, value;
- ``expected.json``: the settings of the release, and the answers that are expected of a later release.

`tests.release_store` writes an archive.
"""

from __future__ import annotations

import json
import lzma
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from flts.contracts.topics import group_of_dead_letters
from tests.whole_log import Logged

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests" / "releases"
MOST_BYTES = 300_000
MODELS = ("GRU", "LSTM", "PROPHET")
"""Model types that the releases train by default."""
ENDING = ".tar.xz"
STORE = "store/"
QUEUE = "queue.jsonl"
EXPECTED = "expected.json"
RELATIVE = 1e-6
"""Relative tolerance: processors round differently; a model that was trained again differs by more than 1e-3."""


@dataclass(frozen=True)
class Release:
    """The archive of one release."""

    archive: Path

    @property
    def commit(self) -> str:
        """Abbreviated hash of the released commit."""
        return self.archive.name.removesuffix(ENDING)

    @cached_property
    def objects(self) -> list[str]:
        """``<bucket>/<key>`` of every object of the store."""
        with tarfile.open(self.archive) as archive:
            files = [member.name for member in archive if member.isfile()]
        return [name.removeprefix(STORE) for name in files if name.startswith(STORE)]

    def unpack(self, folder: Path) -> None:
        """Extract the archive into a folder, which the embedded mode can then use as FLTS_HOME."""
        with tarfile.open(self.archive) as archive:
            archive.extractall(folder, filter="data")

    @cached_property
    def expected(self) -> dict[str, Any]:
        """The content of ``expected.json``."""
        return dict(json.loads(self._read(EXPECTED)))

    @cached_property
    def records(self) -> list[Logged]:
        """The records of the queue: topic by topic, in the order of each partition."""
        return [_from_json(line) for line in self._read(QUEUE).splitlines()]

    @property
    def dead_letters(self) -> list[Logged]:
        """The records of dead-letter topics."""
        return [record for record in self.records if group_of_dead_letters(record.topic)]

    @property
    def good_records(self) -> list[Logged]:
        """The records that no group of the release dead-lettered."""
        given_up = {(letter.key, letter.value) for letter in self.dead_letters}
        return [record for record in self.records if (record.key, record.value) not in given_up]

    def _read(self, name: str) -> bytes:
        with tarfile.open(self.archive) as archive:
            member = archive.extractfile(name)
            assert member is not None
            return member.read()


ADDED = frozenset({"horizon_steps", "baseline"})
"""Fields of an answer that releases after 0.1.0 have and 0.1.0 has not."""
RELEASES = tuple(Release(path) for path in sorted(FOLDER.glob(f"*{ENDING}")))


def assert_same_answer(answer: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Check that a forecast equals the expected forecast, but for `ADDED`; numbers may differ by `RELATIVE`."""
    assert _without_numbers(answer) == _without_numbers(expected)
    assert _numbers(answer) == pytest.approx(_numbers(expected), rel=RELATIVE)


def code_of(commit: str, folder: Path) -> Path:
    """Write the code of a commit into a folder; skip the test if git does not have the commit."""
    packed = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)
    if packed.returncode:
        pytest.skip(f"no commit {commit} in this repository: {packed.stderr.decode().strip()}")
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def write_queue(path: Path, records: Iterable[Logged]) -> None:
    """Write records, one per line."""
    path.write_text("".join(f"{json.dumps(_to_json(record))}\n" for record in records))


def pack(folder: Path, archive: Path) -> None:
    """Archive a folder; equal files with equal modification times give the same bytes."""

    def nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mode = 0o755 if member.isdir() else 0o644
        if member.isdir():
            member.mtime = 0
        return member

    with (
        lzma.open(archive, "wb", preset=9 | lzma.PRESET_EXTREME) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as packed,
    ):
        for path in sorted(folder.rglob("*")):
            packed.add(path, path.relative_to(folder).as_posix(), recursive=False, filter=nobodys)


def _without_numbers(answer: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in answer.items() if name not in ADDED}
    return {**known, "predictions": [row["ts"] for row in answer["predictions"]]}


def _numbers(answer: Mapping[str, Any]) -> dict[tuple[str, str], float | None]:
    return {(row["ts"], name): value for row in answer["predictions"] for name, value in row.items() if name != "ts"}


def _to_json(record: Logged) -> dict[str, Any]:
    return {
        "topic": record.topic,
        "key": _text(record.key),
        "headers": [[name, _text(value)] for name, value in record.headers],
        "value": _text(record.value),
    }


def _from_json(line: bytes) -> Logged:
    values: Mapping[str, Any] = json.loads(line)
    headers = tuple((name, _bytes(value)) for name, value in values["headers"])
    return Logged(values["topic"], _bytes(values["key"]), _bytes(values["value"]), headers)


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "surrogateescape")


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "surrogateescape")
