"""The archives of releases."""

from __future__ import annotations

import os
from pathlib import Path

from tests.released import EXPECTED, QUEUE, Release, pack, write_queue
from tests.whole_log import Logged


def written(folder: Path, *, age_seconds: float = 0.0) -> Path:
    """Write a folder whose files have modification times in an order of their own."""
    for number, name in enumerate(("store/b/second", "store/a/first", "inference/pointers.json", EXPECTED, QUEUE)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}\n" if name == EXPECTED else b"")
        os.utime(path, (0, 1_700_000_000.25 + number - age_seconds))
    return folder


def test_the_same_files_make_the_same_archive(tmp_path: Path) -> None:
    for name in ("one", "other"):
        pack(written(tmp_path / name), tmp_path / f"{name}.tar.xz")
    pack(written(tmp_path / "older", age_seconds=0.5), tmp_path / "older.tar.xz")

    one = (tmp_path / "one.tar.xz").read_bytes()
    assert one == (tmp_path / "other.tar.xz").read_bytes()
    assert one != (tmp_path / "older.tar.xz").read_bytes()


def test_objects_come_back_with_their_times(tmp_path: Path) -> None:
    pack(written(tmp_path / "made"), tmp_path / "abc.tar.xz")
    release = Release(tmp_path / "abc.tar.xz")
    release.unpack(tmp_path / "home")

    assert release.commit == "abc"
    assert release.objects == ["a/first", "b/second"]
    assert (tmp_path / "home/store/a/first").stat().st_mtime == 1_700_000_001.25


def test_records_come_back_byte_by_byte(tmp_path: Path) -> None:
    records = [
        Logged("raw-data", b"key", b'{"a": "\xc3\xa9"}', (("event", b"raw-claim"), ("empty", None))),
        Logged("raw-data", None, b"no text \xff\x00", ()),
        Logged("eval.dead-letter", b"key", b"no text \xff\x00", (("error", "schön".encode()),)),
        Logged("model-training", b"key", None, ()),
    ]
    write_queue(written(tmp_path / "made") / QUEUE, records)
    pack(tmp_path / "made", tmp_path / "abc.tar.xz")

    assert Release(tmp_path / "abc.tar.xz").records == records


def test_a_record_that_a_group_gave_up_is_no_good_record(tmp_path: Path) -> None:
    good, given_up = Logged("raw-data", b"a", b"{}", ()), Logged("raw-data", b"a", b"no event", ())
    letter = Logged("preprocess.dead-letter", b"a", b"no event", (("error", b"not JSON"),))
    write_queue(written(tmp_path / "made") / QUEUE, [good, given_up, letter])
    pack(tmp_path / "made", tmp_path / "abc.tar.xz")

    release = Release(tmp_path / "abc.tar.xz")
    assert release.good_records == [good]
    assert release.dead_letters == [letter]
