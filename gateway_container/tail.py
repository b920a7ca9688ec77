"""The last raw rows of a data set, as a body for /predict."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from flts.errors import NotFoundError, RejectedError
from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.grid import Grid
from flts.forecasting.series import IntArray, Series, regularise
from flts.ingest.encoding import utf16_of
from flts.ingest.magic import format_of
from flts.ingest.reader import read_table
from flts.ingest.table import RawTable
from flts.ingest.uploads import newest_upload, upload_hash
from flts.processes.scratch import scratch_folder
from flts.storage import layout
from flts.storage.ports import ObjectStore
from flts.storage.run_store import RunStore
from gateway_container.settings import GatewaySettings

USUAL_ROWS, MOST_ROWS = 200, 10_000
MOST_CELLS = 2_000_000
"""Cells of one tail, and of all kept tails together: twice 10,000 rows of 100 columns."""
MOST_TAIL_BYTES = 64 * 2**20
"""Bytes of the lines that one tail is read from: 32 for each of `MOST_CELLS`."""
SPARE_LINES = 3  # read in addition to the requested rows, because the file may end with empty lines
BLOCK_BYTES = 1 << 16
HEAD_BYTES = 1 << 20  # enough to guess how the file is written, as `read_table` does


@dataclass(frozen=True, slots=True)
class _Served:
    """The data set that a champion was trained on."""

    recipe: FittedRecipe
    keys: list[str]
    """Keys of its uploaded files, the training file first."""
    settings: dict[str, Any]


class Tails:
    """Reads tails and keeps the last ones, because an upload never changes. Blocks, so routes call it in a thread."""

    def __init__(self, store: ObjectStore, run_store: RunStore, settings: GatewaySettings) -> None:
        self._store = store
        self._runs = run_store.runs
        self._pointers = run_store.pointers
        self._settings = settings
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple[str, str, int], dict[str, Any]] = OrderedDict()

    def tail(self, identifier: str, rows: int | None = None) -> dict[str, Any]:
        """Return the newest rows after the last long gap; a short gap becomes rows of missing cells.

        Without ``rows``, `USUAL_ROWS` are returned, or as many as the champion needs.

        Raises
        ------
        NotFoundError
            If nothing was uploaded as ``identifier``.
        RejectedError
            If ``rows`` is not 1 to `MOST_ROWS`, or the rows have too many cells or bytes (``too_many_cells``).
        """
        if rows is not None and not 1 <= rows <= MOST_ROWS:
            msg = f"rows is 1 to {MOST_ROWS}; got {rows}"
            raise RejectedError(msg, code="bad_rows", field="rows")
        bucket = self._settings.bucket_raw_data
        upload = newest_upload(self._store, bucket, identifier)
        if upload is None:
            msg = f"nothing was uploaded as {identifier}; upload a CSV first: flts upload {identifier} train.csv"
            raise NotFoundError(msg, code="no_upload", field="identifier")
        pointer = self._pointers.current(identifier)
        config_hash = str(pointer[0].get("config_hash")) if pointer else ""
        if rows is None:
            needed = pointer[0].get("rows_required") if pointer else None
            rows = min(max(USUAL_ROWS, needed if isinstance(needed, int) else 0), MOST_ROWS)
        key = (identifier, f"{upload.upload_hash}/{config_hash}", rows)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        settings = self._settings_of(identifier)
        tables = self._read([info.key for info in (upload.train, upload.test) if info is not None], rows, settings)
        served = self._served(identifier, config_hash)
        if served is not None and not _fits(tables[-1], served.recipe):
            # The upload has other columns or another step. Until a run on it is promoted, the champion answers by the
            # rows of the upload that it was trained on.
            settings = self._settings.with_overrides(served.settings)
            tables = self._read(served.keys, rows, settings)
        grid = served.recipe.grid if served is not None else None
        body = tail_body(identifier, tables, rows=rows, max_gap_steps=settings.max_gap_steps, grid=grid)
        self._remember(key, body)
        return body

    def _read(self, keys: list[str], rows: int, settings: GatewaySettings) -> list[RawTable]:
        """Return the ends of an upload's files, the last file last, with ``rows`` rows together if it has as many."""
        tables: list[RawTable] = []
        with scratch_folder("tail") as folder:
            for key in reversed(keys):
                if sum(table.rows for table in tables) >= rows:
                    continue
                path = folder / "file"
                self._store.get_file(self._settings.bucket_raw_data, key, path)
                tables.insert(0, read_tail(path, rows, settings))
                if min(rows, tables[0].rows) * len(tables[0].columns) > MOST_CELLS:
                    _refuse_wide(rows)
        return tables

    def _settings_of(self, identifier: str) -> GatewaySettings:
        """Return the settings of the last run, because an upload can name the columns to ignore."""
        for run_id in self._runs.of(identifier)[:1]:
            record = self._runs.read(identifier, run_id)
            if record is not None:
                return self._settings.with_overrides(record.get("settings") or {})
        return self._settings

    def _served(self, identifier: str, config_hash: str) -> _Served | None:
        """Return the data set of the champion, or None without a champion or if its description is gone."""
        try:
            document, _ = self._store.get(
                self._settings.bucket_processed_data, layout.TRAIN_META(identifier, config_hash)
            )
            meta = json.loads(document)
            hashes = [digest for digest in (meta["raw"]["train"], meta["raw"]["test"]) if digest]
            digest = upload_hash(*hashes)
            return _Served(
                recipe=FittedRecipe.from_dict(meta["recipe"]),
                keys=[
                    layout.UPLOAD(identifier, digest, part) for part, _ in zip(("train", "test"), hashes, strict=False)
                ],
                settings={
                    name: ",".join(value) if isinstance(value, list) else value
                    for name, value in meta["settings"].items()
                    if value is not None
                },
            )
        except (NotFoundError, RejectedError, ValueError, KeyError, TypeError):
            return None

    def _remember(self, key: tuple[str, str, int], body: dict[str, Any]) -> None:
        with self._lock:
            self._cache[key] = body
            while len(self._cache) > 1 and sum(map(_cells, self._cache.values())) > MOST_CELLS:
                self._cache.popitem(last=False)


def read_tail(path: Path, rows: int, settings: GatewaySettings) -> RawTable:
    """Return a file's last rows in time; of a large CSV only the start and the end are read.

    The start shows how the file is written, and the form of its times. The whole file is read if it is not text in an
    encoding of single bytes, if its rows are not in the order of time, or if the form of its times remains unclear.

    Raises
    ------
    RejectedError
        By `read_table`, and ``too_many_cells`` by `ends_of`.
    """
    text = ends_of(path, rows + SPARE_LINES, encoding=settings.encoding)
    if text is not None:
        with contextlib.suppress(RejectedError):
            table = read_table(io.BytesIO(text), limits=settings, settings=settings)
            if table.was_in_order:
                return table.last(rows)
    return read_table(path, limits=settings, settings=settings).last(rows)


def ends_of(path: Path, count: int, *, encoding: str = "") -> bytes | None:
    """Return a file's first lines and its last ``count`` lines, or None if the whole file is to be read.

    Raises
    ------
    RejectedError
        ``too_many_cells`` if the lines have more than `MOST_TAIL_BYTES`: the rows of files from /upload are unchecked.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        start = head.rfind(b"\n") + 1
        at = file.seek(0, io.SEEK_END)
        if format_of(head, "file") != "text" or utf16_of(head) or encoding[:3] in {"utf", "UTF"} or at <= start:
            return None
        blocks: list[bytes] = []
        lines = 0
        while at > start and lines <= count:
            step = min(BLOCK_BYTES, at - start)
            at -= step
            file.seek(at)
            blocks.append(file.read(step))
            lines += blocks[-1].count(b"\n")
            if len(blocks) * BLOCK_BYTES > MOST_TAIL_BYTES:
                _refuse_wide(count)
    found = b"".join(reversed(blocks))
    if at > start or lines > count:
        found = b"\n".join(found.split(b"\n")[-(count + 1) :])
    return head[:start] + found


def tail_body(
    identifier: str, tables: list[RawTable], *, rows: int, max_gap_steps: int, grid: Grid | None = None
) -> dict[str, Any]:
    """Return the last rows of tables that follow each other in time, as a body for /predict.

    Parameters
    ----------
    grid : Grid, optional
        Grid of the data set. It is not used if the rows are on another.
    """
    tables = [*tables[:-1], tables[-1].without_blank_end()]
    last = tables[-1]
    grid = grid if grid is not None and _is_on(last.times, grid) else None
    series, _ = regularise(last.times, last.columns, last.values, max_gap_steps=max_gap_steps, grid=grid)
    if len(tables) > 1:
        series = _joined(tables, series.grid, max_gap_steps) or series
    segment = series.segments()[-1]
    series = series.rows(max(segment.start, segment.stop - rows), segment.stop)
    data: dict[str, list[Any]] = {last.time_column: list(last.time_format.write(series.times))}
    for position, name in enumerate(series.columns):
        column = series.values[:, position]
        data[name] = [None if np.isnan(value) else float(value) for value in column]
    return {"identifier": identifier, "index_col": last.time_column, "data": data}


def _fits(table: RawTable, recipe: FittedRecipe) -> bool:
    """Return whether a champion with this recipe can go on from the rows of a table."""
    return set(recipe.columns) <= set(table.columns) and _is_on(table.times, recipe.grid)


def _is_on(times: IntArray, grid: Grid) -> bool:
    """Return whether at least half of the rows are one step after the row before them."""
    return bool(grid.breaks(times).mean() <= 0.5) if len(times) > 1 else True  # noqa: PLR2004 - half


def _joined(tables: list[RawTable], grid: Grid, max_gap_steps: int) -> Series | None:
    """Return both tables as one series, or None if their columns differ or the test does not follow the training."""
    earlier, later = tables
    if set(earlier.columns) != set(later.columns) or earlier.times[-1] >= later.times[0]:
        return None
    order = [earlier.columns.index(name) for name in later.columns]
    try:
        series, _ = regularise(
            np.concatenate([earlier.times, later.times]),
            later.columns,
            np.concatenate([earlier.values[:, order], later.values]),
            max_gap_steps=max_gap_steps,
            grid=grid,
        )
    except RejectedError:
        return None
    return series


def _refuse_wide(rows: int) -> NoReturn:
    msg = f"the last {rows} rows are too wide to be read at once; ask for fewer"
    raise RejectedError(msg, code="too_many_cells", field="rows")


def _cells(body: dict[str, Any]) -> int:
    return sum(len(column) for column in body["data"].values())
