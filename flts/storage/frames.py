"""Features and raw series as Parquet, with a time index that pandas also reads as the index."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flts.errors import RejectedError
from flts.forecasting.grid import Grid, grid_from_dict
from flts.forecasting.recipe import Features
from flts.forecasting.series import BoolArray, FloatArray, IntArray, Series

MAX_CELLS = 250_000_000
"""Rows x columns that are read into memory at most; 2 GB of doubles."""
GROUP_ROWS = 1 << 20
"""Rows of a row group, which is Arrow's default; only one group at a time is copied into Arrow's memory."""
BATCH_CELLS = 1 << 20
"""Cells that `last_rows_from_parquet` decodes at a time; 8 MB of doubles."""
TIME = "time"
_TIME_TYPE = pa.timestamp("ms", tz="UTC")
_HIDDEN_TIME = "__time__"  # name of the time column in Parquet if a column of the data is called "time"
_OURS = b"flts"


def features_to_parquet(features: Features) -> bytes:
    """Return features as Parquet: a UTC index ``time`` and one column of doubles per feature.

    The metadata of the file contains one bit per raw cell, which is set if the cell was imputed. So the table has no
    columns other than the features.
    """
    ours = {
        "kind": "features",
        **_grid_values(features.grid),
        "imputed_columns": features.imputed.shape[1],
        "imputed": _pack(features.imputed),
    }
    return _to_parquet(features.times, tuple(features.names), features.values, ours, missing=False)


def features_from_parquet(data: bytes) -> Features:
    """Return the features in a file of `features_to_parquet`.

    Raises
    ------
    RejectedError
        With code ``bad_table`` for any other file, or for more than `MAX_CELLS`.
    """
    times, names, values, ours = _from_parquet(data, "features")
    imputed = _unpack(ours.get("imputed"), len(times), ours.get("imputed_columns"))
    return Features(times=times, names=names, values=values, imputed=imputed, grid=_grid_of(ours))


def series_to_parquet(series: Series) -> bytes:
    """Return a series as Parquet in raw units; a missing cell is null."""
    ours = {"kind": "series", **_grid_values(series.grid)}
    return _to_parquet(series.times, series.columns, series.values, ours, missing=True)


def series_from_parquet(data: bytes) -> Series:
    """Return the series in a file of `series_to_parquet`; raises as `features_from_parquet`."""
    times, names, values, ours = _from_parquet(data, "series")
    return Series(times, names, values, _grid_of(ours))


def last_rows_from_parquet(data: bytes, *, rows: int, cells: int) -> Series:
    """Return the last rows in a file of `series_to_parquet`, at most ``rows`` and ``cells``, in little memory.

    Raises
    ------
    RejectedError
        As `features_from_parquet`.
    """
    file = _open(data)
    metadata = _metadata(file)
    ours = _own_metadata(file.schema_arrow.metadata, "series")
    _check_types(file.schema_arrow, ours)
    names = tuple(file.schema_arrow.names[1:])
    first = max(0, metadata.num_rows - min(rows, cells // max(1, len(names))))
    times = np.empty(metadata.num_rows - first, dtype=np.int64)
    values = np.empty((len(times), len(names)))
    groups, start = _groups_from(metadata, first)
    batch_rows = max(1, BATCH_CELLS // (len(names) + 1))
    try:
        for batch in file.iter_batches(batch_size=batch_rows, row_groups=groups, use_threads=False):
            part = batch.slice(max(0, first - start))
            stop = start + len(batch) - first
            start += len(batch)
            if len(part) == 0:
                continue
            at = slice(stop - len(part), stop)
            times[at] = part.column(0).cast(pa.int64()).to_numpy() // 1000
            for position in range(len(names)):
                values[at, position] = part.column(position + 1).to_numpy(zero_copy_only=False)  # null becomes NaN
    except (pa.ArrowException, OSError, ValueError) as error:
        _refuse(str(error), error)
    if start != metadata.num_rows:
        _refuse("it has other rows than its end says")
    return Series(times, names, values, _grid_of(ours))


def _groups_from(metadata: Any, row: int) -> tuple[list[int], int]:
    """Return the row groups with a row and all later rows, and the row at which the first of these groups begins."""
    ends = np.cumsum([metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)])
    group = int(np.searchsorted(ends, row, side="right"))
    return list(range(group, metadata.num_row_groups)), int(ends[group - 1]) if group else 0


def _grid_values(grid: Grid) -> dict[str, Any]:
    return {"step_seconds": grid.step_seconds, **({"grid": grid.to_dict()} if not grid.is_plain else {})}


def _grid_of(ours: dict[str, Any]) -> Grid:
    try:
        return grid_from_dict(ours.get("grid") or {"kind": "fixed", "step_seconds": ours["step_seconds"]})
    except RejectedError as error:
        _refuse(error.message, error)


def parquet_shape(data: bytes) -> tuple[int, int]:
    """Return the numbers of rows and columns, without the time index, from the metadata of the file.

    Raises
    ------
    RejectedError
        With code ``bad_table`` if the file is not Parquet, or its metadata is inconsistent or states too many cells.
    """
    metadata = _metadata(_open(data))
    return metadata.num_rows, metadata.num_columns - 1


def _to_parquet(
    times: IntArray,
    names: tuple[str, ...],
    values: FloatArray,
    ours: Mapping[str, Any],
    *,
    missing: bool,
) -> bytes:
    index = _HIDDEN_TIME if TIME in names else TIME
    fields: list[pa.Field[Any]] = [pa.field(index, _TIME_TYPE, nullable=False)]
    fields += [pa.field(name, pa.float64()) for name in names]
    schema = pa.schema(
        fields,
        metadata={
            _OURS: json.dumps({**ours, "index": index}, sort_keys=True).encode(),
            b"pandas": json.dumps(_pandas_metadata(index, names)).encode(),
        },
    )
    sink = pa.BufferOutputStream()
    # float64 values rarely repeat, so dictionary encoding costs time and saves no space.
    with pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=False, store_schema=True) as writer:
        for start in range(0, max(len(times), 1), GROUP_ROWS):
            rows = slice(start, start + GROUP_ROWS)
            arrays = [pa.array(np.asarray(times[rows], dtype=np.int64) * 1000).cast(_TIME_TYPE)]
            # With `from_pandas` Arrow stores NaN as null. `missing` is true for raw columns, which may have missing
            # cells, and false for features, which have none.
            arrays += [pa.array(np.ascontiguousarray(column), from_pandas=missing) for column in values[rows].T]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
    return sink.getvalue().to_pybytes()


def _from_parquet(data: bytes, kind: str) -> tuple[IntArray, tuple[str, ...], FloatArray, dict[str, Any]]:
    file = _open(data)
    metadata = _metadata(file)
    ours = _own_metadata(file.schema_arrow.metadata, kind)
    _check_types(file.schema_arrow, ours)
    names = tuple(file.schema_arrow.names[1:])
    values = np.empty((metadata.num_rows, len(names)))
    try:
        table = file.read(use_threads=False)
        if table.num_rows != metadata.num_rows:
            _refuse("it has other rows than its end says")
        times = table.column(0).cast(pa.int64()).to_numpy() // 1000
        for position in range(len(names)):
            values[:, position] = table.column(position + 1).to_numpy()  # null becomes NaN
    except (pa.ArrowException, OSError) as error:
        _refuse(str(error), error)
    return np.array(times, dtype=np.int64), names, values, ours


def _check_types(fields: Any, ours: Mapping[str, Any]) -> None:
    if fields.names[:1] != [ours["index"]] or fields.types[0] != _TIME_TYPE:
        _refuse("its first column is not the time")
    if any(type_ != pa.float64() for type_ in fields.types[1:]):
        _refuse("a column holds no doubles")


def _open(data: bytes) -> Any:
    try:
        return pq.ParquetFile(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        _refuse(str(error), error)


def _metadata(file: Any) -> Any:
    """Return the metadata of the file; refuse a table that does not fit into memory."""
    metadata = file.metadata
    cells = metadata.num_rows * metadata.num_columns
    if cells > MAX_CELLS:
        _refuse(f"it has {metadata.num_rows} rows x {metadata.num_columns} columns, more than {MAX_CELLS} cells")
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    if sum(group.num_rows for group in groups) != metadata.num_rows:
        _refuse("its parts have other rows than its end says")
    # A cell needs 8 bytes and a few bits. A file that unpacks to more than twice that was not written by FLTS.
    if sum(group.total_byte_size for group in groups) > 16 * cells + (1 << 20):
        _refuse("it unpacks to far more than its cells need")
    return metadata


def _own_metadata(metadata: Mapping[bytes, bytes] | None, kind: str) -> dict[str, Any]:
    try:
        ours = dict(json.loads((metadata or {})[_OURS]))
        known = ours["kind"] == kind and isinstance(ours["step_seconds"], int) and isinstance(ours["index"], str)
    except (KeyError, TypeError, ValueError) as error:
        _refuse(f"it has no {kind} in it", error)
    if not known:
        _refuse(f"it has no {kind} in it")
    return ours


def _pandas_metadata(index: str, names: tuple[str, ...]) -> dict[str, Any]:
    def column(
        name: str | None, field: str | None, kind: str, numpy: str, more: dict[str, str] | None
    ) -> dict[str, Any]:
        return {"name": name, "field_name": field, "pandas_type": kind, "numpy_type": numpy, "metadata": more}

    labels = column(None, None, "unicode", "str", {"encoding": "UTF-8"})
    columns = [column(name, name, "float64", "float64", None) for name in names]
    time = column(TIME, index, "datetimetz", "datetime64[ms, UTC]", {"timezone": "UTC"})
    return {
        "index_columns": [index],
        "column_indexes": [labels],
        "columns": [*columns, time],
        "creator": {"library": "flts", "version": "1"},
        "pandas_version": "2.0.0",
    }


def _pack(imputed: BoolArray) -> str:
    return base64.b64encode(zlib.compress(np.packbits(imputed).tobytes(), 1)).decode()


def _unpack(packed: object, rows: int, columns: object) -> BoolArray:
    if not isinstance(packed, str) or not isinstance(columns, int) or not 0 <= rows * columns <= MAX_CELLS:
        _refuse("it does not say which cells were imputed")
    size = (rows * columns + 7) // 8
    try:
        bits = zlib.decompressobj().decompress(base64.b64decode(packed), size + 1)
    except (ValueError, zlib.error) as error:
        _refuse("it does not say which cells were imputed", error)
    if len(bits) != size:
        _refuse("it says of other cells which were imputed")
    flags = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=rows * columns)
    return flags.reshape(rows, columns).astype(np.bool_)


def _refuse(reason: str, cause: Exception | None = None) -> NoReturn:
    msg = f"this is no Parquet table of ours: {reason}"
    raise RejectedError(msg, code="bad_table") from cause
