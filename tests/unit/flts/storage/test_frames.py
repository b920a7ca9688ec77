from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flts.errors import HashMismatchError, RejectedError
from flts.forecasting.grid import FixedGrid
from flts.forecasting.recipe import Features
from flts.forecasting.series import Series
from flts.storage import frames
from flts.storage.claimed_frames import read_claimed_features, read_claimed_series
from flts.storage.claims import put_claimed
from flts.storage.frames import (
    features_from_parquet,
    features_to_parquet,
    last_rows_from_parquet,
    parquet_shape,
    series_from_parquet,
    series_to_parquet,
)
from tests.stores import folder_store

NAMES = (*(f"column {number}" for number in range(11)), "min_of_day_sin", "min_of_day_cos", "a", "b", "c", "d")


def make_features(rows: int = 300, names: tuple[str, ...] = NAMES, seed: int = 0) -> Features:
    random = np.random.default_rng(seed)
    return Features(
        times=1_600_000_000 + 600 * np.arange(rows, dtype=np.int64),
        names=names,
        values=random.normal(size=(rows, len(names))),
        imputed=random.random((rows, 11)) < 0.1,
        grid=FixedGrid(600),
    )


def make_series(rows: int = 300) -> Series:
    random = np.random.default_rng(1)
    values = random.normal(size=(rows, 3)) * 1e6
    values[random.random(values.shape) < 0.2] = np.nan
    return Series(
        1_600_000_000 + 120 * np.arange(rows, dtype=np.int64), ("down", "time", "up é"), values, FixedGrid(120)
    )


def test_features_come_back_bit_for_bit_with_what_was_imputed() -> None:
    features = make_features()

    back = features_from_parquet(features_to_parquet(features))

    assert back.names == features.names
    assert back.grid == FixedGrid(600)
    np.testing.assert_array_equal(back.times, features.times)
    np.testing.assert_array_equal(back.values, features.values)
    np.testing.assert_array_equal(back.imputed, features.imputed)
    dtypes = [back.times.dtype, back.values.dtype, back.imputed.dtype]  # noqa: PD011 - no pandas here
    assert dtypes == [np.int64, np.float64, np.bool_]


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(0, 40), columns=st.integers(0, 9), seed=st.integers(0, 100))
def test_imputed_cells_survive_any_shape(rows: int, columns: int, seed: int) -> None:
    imputed = np.random.default_rng(seed).random((rows, columns)) < 0.5

    np.testing.assert_array_equal(frames._unpack(frames._pack(imputed), rows, columns), imputed)


def test_pandas_shows_the_times_as_the_index_and_the_features_alone_as_columns() -> None:
    features = make_features(15)

    table = pd.read_parquet(io.BytesIO(features_to_parquet(features)))

    assert table.shape == (15, 17)
    assert list(table.columns) == list(NAMES)
    assert isinstance(table.index, pd.DatetimeIndex)
    assert (table.index.name, str(table.index.tz)) == ("time", "UTC")
    assert table.index[1] == pd.Timestamp("2020-09-13T12:36:40Z")
    assert set(table.dtypes) == {np.dtype(np.float64)}
    np.testing.assert_array_equal(table.to_numpy(), features.values)


def test_a_series_keeps_its_raw_values_and_its_missing_cells() -> None:
    series = make_series()

    data = series_to_parquet(series)
    back = series_from_parquet(data)

    assert (back.columns, back.grid) == (series.columns, FixedGrid(120))
    np.testing.assert_array_equal(back.values, series.values)
    np.testing.assert_array_equal(back.times, series.times)
    missing = [pq.read_table(io.BytesIO(data)).column(name).null_count for name in series.columns]
    assert missing == np.isnan(series.values).sum(axis=0).tolist()


def test_a_column_called_time_stands_beside_the_index() -> None:
    table = pd.read_parquet(io.BytesIO(series_to_parquet(make_series(5))))

    assert list(table.columns) == ["down", "time", "up é"]
    assert table.index.name == "time"


def test_the_same_table_is_the_same_file() -> None:
    assert features_to_parquet(make_features()) == features_to_parquet(make_features())


def test_the_shape_is_read_from_the_end_of_the_file() -> None:
    assert parquet_shape(features_to_parquet(make_features(23))) == (23, 17)
    assert parquet_shape(series_to_parquet(make_series(7))) == (7, 3)


def test_readers_check_rows_and_columns_against_the_claim(tmp_path: Path) -> None:
    store = folder_store(tmp_path)
    features, series = make_features(50), make_series(40)
    right = put_claimed(store, "processed-data", "f", features_to_parquet(features), rows=50, columns=17)
    raw = put_claimed(store, "processed-data", "s", series_to_parquet(series), rows=40, columns=3)

    np.testing.assert_array_equal(read_claimed_features(store, right).values, features.values)
    assert len(read_claimed_series(store, raw)) == 40
    for wrong, field in (({"rows": 51}, "rows"), ({"columns": 16}, "columns")):
        with pytest.raises(RejectedError, match="its claim says") as refusal:
            read_claimed_features(store, right.model_copy(update=wrong))
        assert (refusal.value.code, refusal.value.field) == ("claim_shape", field)
        with pytest.raises(RejectedError, match="its claim says"):
            read_claimed_series(store, raw.model_copy(update=wrong))
    store.put("processed-data", "f", features_to_parquet(make_features(50, seed=2)))
    with pytest.raises(HashMismatchError):
        read_claimed_features(store, right)


def test_a_stored_table_that_wins_is_claimed_with_its_own_shape(tmp_path: Path) -> None:
    store = folder_store(tmp_path)
    key = "x/processed_data.parquet"
    put_claimed(store, "processed-data", key, features_to_parquet(make_features(50)), rows=50, columns=17)

    claim = put_claimed(store, "processed-data", key, features_to_parquet(make_features(60)), rows=60, columns=17)

    assert (claim.rows, claim.columns) == (50, 17)
    assert len(read_claimed_features(store, claim).times) == 50


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def test_what_is_no_table_of_ours_is_refused() -> None:
    good = features_to_parquet(make_features(20))
    foreign = parquet(pa.table({"time": [1, 2], "a": [1.0, 2.0]}))
    ours = pq.read_schema(io.BytesIO(good)).metadata
    strings = parquet(pa.table({"time": ["x"], "a": ["y"]}).replace_schema_metadata(ours))
    for data in (b"", b"PAR1", b"time,a\n1,2\n", good[:-100], good[len(good) // 2 :], foreign, strings,
                 series_to_parquet(make_series(5))):  # fmt: skip
        with pytest.raises(RejectedError) as refusal:
            features_from_parquet(data)
        assert refusal.value.code == "bad_table"
    with pytest.raises(RejectedError):
        series_from_parquet(good)


def test_a_damaged_page_is_refused_and_not_read_as_numbers() -> None:
    data = bytearray(features_to_parquet(make_features(500)))
    data[40:400] = bytes(360)

    with pytest.raises(RejectedError) as refusal:
        features_from_parquet(bytes(data))

    assert refusal.value.code == "bad_table"


def test_more_cells_than_fit_into_memory_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = features_to_parquet(make_features(200))
    monkeypatch.setattr(frames, "MAX_CELLS", 3000)

    with pytest.raises(RejectedError, match="more than 3000 cells"):
        features_from_parquet(data)
    with pytest.raises(RejectedError, match="more than 3000 cells"):
        parquet_shape(data)


def test_a_file_that_unpacks_to_far_more_than_its_cells_is_refused_before_it_is_read() -> None:
    bomb = parquet(pa.table({"time": ["x" * 20_000_000]}), compression="zstd", use_dictionary=False)
    assert len(bomb) < 200_000

    with pytest.raises(RejectedError, match="unpacks to far more"):
        series_from_parquet(bomb)


@pytest.mark.parametrize(
    ("rows", "cells", "read"),
    [
        (0, 900, 0),
        (1, 900, 1),
        (49, 900, 49),
        (50, 900, 50),
        (51, 900, 51),
        (1000, 900, 300),
        (1000, 10**9, 300),
        (100, 100, 33),
    ],
)
def test_the_last_rows_are_read_from_the_row_groups_that_have_them(
    monkeypatch: pytest.MonkeyPatch, rows: int, cells: int, read: int
) -> None:
    monkeypatch.setattr(frames, "GROUP_ROWS", 50)
    monkeypatch.setattr(frames, "BATCH_CELLS", 40)  # ten rows at a time
    series = make_series()

    last = last_rows_from_parquet(series_to_parquet(series), rows=rows, cells=cells)

    np.testing.assert_array_equal(last.times, series.times[300 - read :])
    np.testing.assert_array_equal(last.rows(0).values, series.rows(300 - read).values)
    assert (last.columns, last.grid) == (series.columns, series.grid)


def test_the_last_rows_of_another_table_are_refused() -> None:
    with pytest.raises(RejectedError) as refused:
        last_rows_from_parquet(features_to_parquet(make_features()), rows=10, cells=1000)

    assert refused.value.code == "bad_table"
