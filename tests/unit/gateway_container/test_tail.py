"""The last rows of a file are the same whether its ends or all of it are read."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from gateway_container.settings import GatewaySettings
from gateway_container.tail import HEAD_BYTES, ends_of, read_end

ROWS = 60_000


def lines(order: int = 1) -> str:
    rows = [f"{1_700_000_000 + 60 * at};{at},5\n" for at in range(ROWS)][::order]
    return "Meter 12\ntime;load\n" + "".join(rows)


@pytest.mark.parametrize(
    ("data", "in_part"),
    [
        (lines().encode(), True),
        (lines(-1).encode(), True),
        (lines().encode("utf-16"), False),
        (gzip.compress(lines().encode()), False),
        (b"time,load\n1700000000,1\n1700000060,2\n", False),
    ],
)
def test_the_last_rows_are_read(data: bytes, in_part: bool, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    settings = GatewaySettings(
        store="filesystem", store_path=tmp_path, kafka_bootstrap_servers="nowhere:9092", gateway_api_key="k" * 32
    )

    table = read_end(path, 2, settings)

    assert (ends_of(path, 5) is not None) == in_part
    assert not in_part or len(data) > HEAD_BYTES
    first = 1_700_000_000 + 60 * (ROWS - 2) if len(data) > 100 else 1_700_000_000
    assert table.times.tolist() == [first, first + 60]
