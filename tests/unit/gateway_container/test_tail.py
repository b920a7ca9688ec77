from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flts.errors import RejectedError
from gateway_container.settings import GatewaySettings
from gateway_container.tail import HEAD_BYTES, ends_of, read_tail
from tests.gateway import KEY

START = datetime(2024, 1, 20, tzinfo=UTC)


def settings(**values: Any) -> GatewaySettings:
    given = {
        "store": "filesystem",
        "store_path": "x",
        "kafka_bootstrap_servers": "nowhere:9092",
        "gateway_api_key": KEY,
    }
    return GatewaySettings(**{**given, **values})


def hourly(folder: Path, rows: int) -> Path:
    lines = [f"{(START + timedelta(hours=at)).strftime('%d.%m.%Y %H:%M')},{at}" for at in range(rows)]
    path = folder / "train.csv"
    path.write_text("\n".join(["time,load", *lines]) + "\n")
    return path


def test_last_rows_that_do_not_show_the_order_of_day_and_month_are_read_with_more_rows(tmp_path: Path) -> None:
    path = hourly(tmp_path, 24 * 20)  # until 8 February

    table = read_tail(path, 10, settings())

    assert np.datetime64(int(table.times[-1]), "s") == np.datetime64("2024-02-08T23:00:00")
    assert table.times[-1] - table.times[-2] == 3600


def test_a_tail_is_read_as_its_settings_say(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("time,load\n01/02/2024 12:00,1\n01/02/2024 13:00,2\n")

    with pytest.raises(RejectedError) as refusal:
        read_tail(path, 10, settings())
    table = read_tail(path, 10, settings(time_format="DD/MM/YYYY", time_zone="Europe/Berlin"))

    assert refusal.value.code == "ambiguous_time"
    assert np.datetime64(int(table.times[0]), "s") == np.datetime64("2024-02-01T11:00:00")


ROWS = 60_000


def minutes(order: int = 1) -> str:
    rows = [f"{1_700_000_000 + 60 * at};{at},5\n" for at in range(ROWS)][::order]
    return "Meter 12\ntime;load\n" + "".join(rows)


@pytest.mark.parametrize(
    ("data", "in_part"),
    [
        (minutes().encode(), True),
        (minutes(-1).encode(), True),
        (minutes().encode("utf-16"), False),
        (gzip.compress(minutes().encode()), False),
    ],
)
def test_the_last_rows_are_the_newest_whether_the_ends_or_the_whole_file_is_read(
    data: bytes, in_part: bool, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)

    table = read_tail(path, 2, settings())

    assert (ends_of(path, 5) is not None) == in_part
    assert not in_part or len(data) > HEAD_BYTES
    assert table.times.tolist() == [1_700_000_000 + 60 * at for at in (ROWS - 2, ROWS - 1)]
