"""A child process reads files, with limits of memory and time that end it before the gateway."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from flts.errors import RejectedError
from gateway_container.checking import FileChecks, check_files, order_of
from gateway_container.settings import GatewaySettings
from tests.gateway import KEY, csv_text, following


def settings(**values: Any) -> GatewaySettings:
    given = {
        "store": "filesystem",
        "store_path": "x",
        "kafka_bootstrap_servers": "nowhere:9092",
        "gateway_api_key": KEY,
    }
    return GatewaySettings(**{**given, **values})


@contextmanager
def checks_of(settings: GatewaySettings, left: int | None = None) -> Iterator[FileChecks]:
    checks = FileChecks(settings, lambda: left)
    try:
        yield checks
    finally:
        checks.close()


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def wide(folder: Path) -> Path:
    """Write a file of 18 MB with nine million cells: 72 MB as numbers, plus copies of them."""
    header = b"time," + b",".join(b"c%d" % at for at in range(900)) + b"\n"
    row = b"," + b",".join([b"1"] * 900) + b"\n"
    return write(folder, "wide", header + b"".join(b"%d" % (1_700_000_000 + 60 * at) + row for at in range(10_000)))


def test_a_child_answers_and_refuses_as_the_work_itself_does(tmp_path: Path) -> None:
    given = settings(targets=("down",), ignore_columns=("note",))
    train = write(tmp_path, "a", csv_text(300, columns={"note": "x"}))
    test = write(tmp_path, "b", csv_text(80, start=following(300), columns={"note": "y"}))
    short = write(tmp_path, "c", csv_text(2, columns={"note": "x"}))
    expected = json.loads(json.dumps(check_files(order_of(train, test, given), lambda _: None)))

    with checks_of(given) as checks:
        assert checks.check(train, test, given) == expected
        with pytest.raises(RejectedError) as refused:
            checks.check(short, None, given)
        assert (refused.value.code, refused.value.field) == ("too_few_rows", "train")
        with pytest.raises(RejectedError) as refused:
            checks.check(train, short, given)
        assert refused.value.code == "test_overlaps_train"


def test_secrets_do_not_go_along(tmp_path: Path) -> None:
    order = order_of(tmp_path, None, settings())

    assert KEY not in json.dumps(order)
    assert not {name for name in order["settings"] if "key" in name or name.startswith(("aws", "kafka", "store"))}


@pytest.mark.parametrize("hostile", ["train", "test"])
def test_a_file_that_needs_more_memory_than_a_check_may_have_is_too_large_by_its_name(
    tmp_path: Path, hostile: str
) -> None:
    given = settings(validation_memory_bytes=96 * 2**20)
    large, good = wide(tmp_path), write(tmp_path, "good", csv_text(300))

    with checks_of(given) as checks:
        with pytest.raises(RejectedError, match="VALIDATION_MEMORY_BYTES") as refused:
            checks.check(large if hostile == "train" else good, large if hostile == "test" else None, given)
        assert (refused.value.code, refused.value.field) == ("too_large", hostile)
        assert checks.check(good, None, given)["rows"] == [300, None]


def test_a_check_gets_no_more_than_its_container_can_spare_and_says_so(tmp_path: Path) -> None:
    large, good = wide(tmp_path), write(tmp_path, "good", csv_text(300))

    with checks_of(settings(), left=128 * 2**20) as checks:
        with pytest.raises(RejectedError, match=r"more than 100,663,296 bytes of memory, .* container") as refused:
            checks.check(large, None, settings())
        assert (refused.value.code, refused.value.field) == ("too_large", "train")
    with checks_of(settings(), left=0) as checks:
        assert checks.check(good, None, settings())["rows"] == [300, None]


def test_a_file_that_takes_too_long_is_too_large_and_its_child_is_gone(tmp_path: Path) -> None:
    given = settings(validation_seconds=0.2)
    large = wide(tmp_path)

    with checks_of(given) as checks:
        others = set(psutil.Process().children())
        checks.warm_up()
        [child] = set(psutil.Process().children()) - others
        started = time.monotonic()
        with pytest.raises(RejectedError, match="VALIDATION_SECONDS") as refused:
            checks.check(large, None, given)
    assert refused.value.code == "too_large"
    assert time.monotonic() - started < 30
    assert not child.is_running()
