from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flts.errors import RejectedError
from gateway_container.settings import GatewaySettings
from gateway_container.tail import read_tail
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
