"""The values of a large file are in a file: with the same numbers and the same report, and in little memory."""

from __future__ import annotations

import errno
import io
import mmap
import resource
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flts.forecasting.by_column import CHUNK_ROWS
from flts.forecasting.recipe import RecipeSpec, fit_recipe
from flts.forecasting.splits import as_train
from flts.ingest import gathering
from flts.ingest.gathering import PIECE_BYTES, Gathered
from flts.ingest.layout import lay_out
from flts.ingest.reader import read_table
from flts.ingest.report import validation_report
from flts.ingest.table import RawTable
from flts.recipe_settings import ReadSettings, RecipeSettings
from flts.settings import UploadLimits, WindowSettings

STEP = 60
MOST_BYTES_A_ROW = 20
"""Beside the times. One column of the training rows and a copy of it have 12.8 bytes a row; the values have 24."""


def csv_of(times: np.ndarray, values: np.ndarray) -> bytes:
    rows = (
        f"{time}," + ",".join("" if np.isnan(cell) else repr(cell) for cell in row)
        for time, row in zip(times.tolist(), values.tolist(), strict=True)
    )
    return "\n".join(["time,a,b,c", *rows, ""]).encode()


def clean() -> tuple[np.ndarray, np.ndarray]:
    rows = 3_000
    values = 50 + np.random.default_rng(0).normal(size=(rows, 3)).cumsum(axis=0)
    return 1_700_000_000 + STEP * np.arange(rows), values


def with_gaps() -> tuple[np.ndarray, np.ndarray]:
    times, values = clean()
    values[np.random.default_rng(1).random(values.shape) < 0.1] = np.nan
    kept = np.ones(len(times), dtype=bool)
    kept[[7, 8, 500, 2_900]] = False
    kept[1_000:1_100] = False
    return times[kept], values[kept]


def with_implausible_cells() -> tuple[np.ndarray, np.ndarray]:
    times, values = clean()
    values[[5, 2_950], 1] = 1e9
    values[[20, 30, 40], 2] = -9999.0
    return times, values


def newest_first() -> tuple[np.ndarray, np.ndarray]:
    times, values = clean()
    return times[::-1], values[::-1]


def shuffled_with_repeated_rows() -> tuple[np.ndarray, np.ndarray]:
    times, values = with_gaps()
    order = np.random.default_rng(2).permutation(np.concatenate([np.arange(len(times)), [3, 3, 4]]))
    times, values = times[order], values[order]
    values[7] = 1.0
    return times, values


def read(data: bytes, folder: Path | None) -> RawTable:
    return read_table(io.BytesIO(data), limits=UploadLimits(), settings=ReadSettings(), scratch=folder)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let longer writes fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def is_mapped(values: np.ndarray) -> bool:
    owner: Any = values
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return isinstance(owner, mmap.mmap)


@pytest.mark.parametrize(
    "made",
    [clean, with_gaps, with_implausible_cells, newest_first, shuffled_with_repeated_rows],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("settings", [{}, {"nans_drop_rows": True, "clip_enable": True}], ids=["default", "drops rows"])
def test_the_report_and_the_recipe_do_not_depend_on_where_the_values_are(
    made: Any, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gathering, "PIECE_BYTES", 1_000)
    data, recipe, windows = csv_of(*made()), RecipeSettings(**settings), WindowSettings()

    in_memory, in_file = read(data, None), read(data, tmp_path)

    np.testing.assert_array_equal(in_file.times, in_memory.times)
    np.testing.assert_array_equal(in_file.values, in_memory.values)
    assert in_file.notes == in_memory.notes
    reports = [validation_report(table, None, recipe, windows).as_dict() for table in (in_memory, in_file)]
    assert reports[0] == reports[1]
    fits = [
        fit_recipe(as_train(lay_out(table, None, recipe).train), RecipeSpec.of(recipe))
        for table in (in_memory, in_file)
    ]
    assert fits[0].to_dict() == fits[1].to_dict()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("made", [clean, newest_first], ids=lambda f: f.__name__)
def test_values_in_order_of_time_stay_in_the_file(made: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gathering, "PIECE_BYTES", 1_000)

    table = read(csv_of(*made()), tmp_path)

    assert is_mapped(table.values)
    layout = lay_out(table, None, RecipeSettings())
    assert is_mapped(layout.train.values)
    assert is_mapped(layout.test.values)


def test_values_of_a_small_file_are_in_memory(tmp_path: Path) -> None:
    assert not is_mapped(read(csv_of(*clean()), tmp_path).values)


@pytest.mark.parametrize("free_bytes", [0, 400, 1_000_000])
def test_a_full_disk_leaves_the_values_in_memory(
    free_bytes: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gathering, "PIECE_BYTES", 160)
    blocks = [np.arange(20.0).reshape(10, 2) + at for at in range(4)]
    gathered = Gathered(2, tmp_path)

    with files_of_at_most(free_bytes):
        for block in blocks:
            gathered.add(block)
        gathered.add(np.ones((1, 2)))
        values = gathered.values()

    np.testing.assert_array_equal(values, np.concatenate([*blocks, np.ones((1, 2))]))
    assert is_mapped(values) == (free_bytes > 1_000)
    assert list(tmp_path.iterdir()) == []


def test_a_large_file_needs_less_memory_than_its_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gathering, "PIECE_BYTES", 1_000_000)
    rows = 4 * CHUNK_ROWS
    times = 1_000_000_000 + STEP * np.arange(rows)
    gathered = Gathered(3, tmp_path)
    for start in range(0, rows, 10_000):
        at = np.arange(start, min(start + 10_000, rows))
        gathered.add(np.sin(at[:, None] / (144, 1_008, 7)))
    tracemalloc.start()
    try:
        table = RawTable(times, ("a", "b", "c"), gathered.values(), "time")
        tracemalloc.reset_peak()
        validation_report(table, None, RecipeSettings(), WindowSettings())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak / rows < MOST_BYTES_A_ROW


def test_a_file_that_the_address_space_cannot_hold_is_a_lack_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("mmap.mmap", no_room)
    gathered = Gathered(1, tmp_path)
    gathered.add(np.zeros((PIECE_BYTES // 8, 1)))

    with pytest.raises(MemoryError):
        gathered.values()
