"""Bad uploads, sent over HTTP to a running gateway: the answer to each of them, and the gateway's memory.

The tests check status, code, field and message of each refusal, and that the gateway stores nothing. The gateway's
memory stays below the limit in gateway_container/README.md. Afterwards a good upload becomes a served forecast.
"""

from __future__ import annotations

import gzip
import io
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.files_below import files_below
from tests.memory_watch import MIB, MemoryWatch
from tests.raw_http import FORM_TYPE, RawAnswer, form, send
from tests.reports import report
from tests.seasonal import seasonal_csv
from tests.stack import UPLOAD_BYTES, VALIDATION_BYTES, RunningStack

pytestmark = pytest.mark.timeout(300)

BAD = "bad-uploads"
GATEWAY_BYTES = 350 * MIB
"""Limit in bytes of the gateway's own process, for any upload; its README states it."""
CHILD_BYTES = 150 * MIB
"""Bytes of a checking child process before its first file; VALIDATION_MEMORY_BYTES excludes them."""
GIGABYTE = 2**30
PIECE = 2**18

Body = Iterable[bytes]


def lines(*cells: str, head: str = "time,a,b") -> Callable[[], Body]:
    return lambda: [("\n".join([head, *cells]) + "\n").encode()]


def bytes_of(data: bytes) -> Callable[[], Body]:
    return lambda: [data]


def rows(count: int, *, start: int = 0, step: int = 60) -> list[str]:
    return [f"{1_700_000_000 + step * at},{at % 7}.5,{at % 3}" for at in range(start, start + count)]


def repeated(start: bytes, piece: bytes, total: int) -> Callable[[], Body]:
    """Return a function that yields a body of about `total` bytes in pieces, so that no process holds all of it."""
    return lambda: itertools.chain([start], itertools.repeat(piece * (PIECE // len(piece)), total // PIECE))


def gzip_bomb() -> Body:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
        for _ in range(64):
            file.write((b"1700000000," + b"1." + b"0" * 84 + b",2\n") * (MIB // 100))
    return [packed.getvalue()]


def parquet_bomb() -> Body:
    packed = io.BytesIO()
    pq.write_table(pa.table({"time": pa.array(np.zeros(20_000_000, np.int8))}), packed, compression="zstd")
    return [packed.getvalue()]


def many_cells() -> Body:
    """Yield 13 million cells in 25 MB: within every limit except the memory of one check, which sorts the rows."""
    yield b"time," + b",".join(b"c%d" % at for at in range(900)) + b"\n"
    row = b"," + b",".join([b"1"] * 900) + b"\n"
    for block in range(0, 14_000, 100):
        yield b"".join(b"%d" % (1_700_000_000 + 60 * (block - at)) + row for at in range(100))


@dataclass(frozen=True)
class Case:
    """One upload and the expected answer."""

    name: str
    body: Callable[[], Body]
    status: int
    code: str
    field: str | None
    words: str
    file: str = "train"
    """Form field of the bad file; a bad test file is sent together with a good training file."""
    headers: dict[str, str] = field(default_factory=dict)
    declared: int | None = None
    """Content-Length; if None, the client sends the body in chunks."""
    most_sent: int | None = None
    """Most bytes that the client may have sent before the answer."""


GOOD = rows(200)
CASES = [
    Case("an empty file", bytes_of(b""), 422, "empty_file", "train", "the file is empty"),
    Case("a header alone", lines(), 422, "no_rows", "train", "a header and no rows"),
    Case("no time column", lines("1,2,3", head="x,a,b"), 422, "no_time_column", "train", "names x, a, b"),
    Case("two time columns", lines("1,2,3", head="time,a,ts"), 422, "two_time_columns", "ts", "TIME_COLUMN=ts"),
    Case("a row without a time", lines(*rows(9), ",1,2"), 422, "missing_time", "time", "row 10 has no time"),
    Case("a time that is none", lines("soon,1,2"), 422, "bad_time", "time", "'soon' is not a time"),
    Case("text in a number", lines(*rows(9), "1800000000,x,2"), 422, "not_a_number", "a", "row 10, column a: 'x'"),
    Case("a decimal comma", lines(*rows(9), '1800000000,"1,5",2'), 422, "decimal_comma", "a", "DECIMAL decides"),
    Case("an infinity", lines(*rows(3), "1800000000,1,-inf"), 422, "infinite_value", "b", "row 4, column b"),
    Case("a number too large", lines("1,1e999,2"), 422, "infinite_value", "a", "too large for a float64"),
    Case(
        "a row too long", lines(*rows(2), "1800000000,1,2,3", *rows(2)), 422, "ragged_row", "train", "row 3 has 4 cells"
    ),
    Case("one row", lines(*rows(1)), 422, "too_few_rows", "train", "1 row(s) cannot be split"),
    Case("two rows", lines(*rows(2)), 422, "too_few_rows", "train", "2 row(s) cannot be split"),
    Case(
        "all columns empty",
        lines(*(f"{1_700_000_000 + at},," for at in range(200))),
        422,
        "no_columns",
        "NANS_THRESHOLD",
        "100.0%",
    ),
    Case("200,000 columns", bytes_of(b"time" + b",c" * 200_000 + b"\n"), 422, "too_many_columns", "train", "1,000"),
    Case(
        "2,000,000 columns",
        repeated(b"time", b",c", 4_000_000),
        422,
        "too_many_columns",
        "train",
        "cells",
        most_sent=16 * MIB,
    ),
    Case(
        "a cell of 1 GB",
        repeated(b"time,a\n1,", b"9", GIGABYTE),
        422,
        "line_too_long",
        "train",
        "longer than 1,048,576 bytes",
        most_sent=16 * MIB,
    ),
    Case(
        "a quoted cell of 1 GB",
        repeated(b'time,a\n1,"', b"x", GIGABYTE),
        422,
        "line_too_long",
        "train",
        "one row a line",
        most_sent=16 * MIB,
    ),
    Case(
        "a cell of 1 GB, declared",
        repeated(b"time,a\n1,", b"9", GIGABYTE),
        413,
        "too_large",
        "train",
        "MAX_UPLOAD_BYTES",
        declared=GIGABYTE,
        most_sent=16 * MIB,
    ),
    Case(
        "too large, in chunks",
        repeated(b"time,a\n", b"1,2\n", 3 * UPLOAD_BYTES),
        413,
        "too_large",
        "train",
        f"more than {UPLOAD_BYTES} bytes (MAX_UPLOAD_BYTES)",
        most_sent=UPLOAD_BYTES + 32 * MIB,
    ),
    Case("more cells than memory", many_cells, 413, "too_large", "train", "VALIDATION_MEMORY_BYTES"),
    Case("deep quotes", lines("1," + '"' * 400_001, head="time,a"), 422, "cell_too_long", "a", "row 1"),
    Case("quotes that swallow a line", lines('1,"2,3', '2,4",5'), 422, "broken_quotes", "train", "one row is one line"),
    Case("NUL", lines("1,2,\0"), 422, "not_text", "train", "NUL"),
    Case("a gzip bomb", gzip_bomb, 413, "too_large", "train", "MAX_UPLOAD_BYTES"),
    Case("a Parquet bomb", parquet_bomb, 422, "no_numeric_column", "train", "beside time"),
    Case("a zip", bytes_of(b"PK\x03\x04" + bytes(100)), 422, "unreadable", "train", "Excel file is damaged"),
    Case("a zstd file", bytes_of(b"\x28\xb5\x2f\xfd" + bytes(100)), 422, "not_csv", "train", "zstd"),
    Case(
        "a packed body",
        gzip_bomb,
        415,
        "encoded_body",
        "Content-Encoding",
        "'gzip'",
        headers={"Content-Encoding": "gzip"},
    ),
    Case("no form", lines(*GOOD), 422, "bad_form", "train", "curl -F", headers={"Content-Type": "text/csv"}),
    Case("a field nobody knows", lines(*GOOD), 422, "unknown_field", "trian", "known: force", file="trian"),
    Case("an empty test file", bytes_of(b""), 422, "empty_file", "test", "the file is empty", file="test"),
    Case("a test before the training", lines(*rows(20)), 422, "test_overlaps_train", "test", "after", file="test"),
    Case(
        "a test of other columns",
        lines("1800000000,1", head="time,a"),
        422,
        "missing_column",
        "b",
        "has no column b",
        file="test",
    ),
    Case(
        "a test of another step",
        lines(*rows(20, start=900, step=900)),
        422,
        "step_differs",
        "test",
        "steps of 15 min",
        file="test",
    ),
    Case("a gzip bomb as test", gzip_bomb, 413, "too_large", "test", "_BYTES)", file="test"),
]


def upload(stack: RunningStack, case: Case) -> RawAnswer:
    files = form(case.file, case.body())
    if case.file == "test":
        train = itertools.takewhile(lambda piece: not piece.startswith(b"\r\n--"), form("train", lines(*GOOD)()))
        files = itertools.chain(train, [b"\r\n"], files)
    headers = {"x-api-key": key(stack), "Content-Type": FORM_TYPE, **case.headers}
    url = stack.state["gateway_url"]
    return send(url, "POST", f"/datasets/{BAD}", headers=headers, body=files, declared=case.declared)


def key(stack: RunningStack) -> str:
    return (stack.home / "api-key").read_text().strip()


def stored(stack: RunningStack, identifier: str) -> list[Path]:
    folders = (stack.store / "raw-data", stack.store / "pipeline-runs")
    return [path for folder in folders for path in files_below(folder) if identifier in path.parts]


def gateway_watch(stack: RunningStack) -> MemoryWatch:
    return MemoryWatch({"gateway": stack.pid("fastapi-app")}, stack.scratch)


def test_every_bad_upload_is_refused_to_the_letter_and_costs_the_gateway_little(stack: RunningStack) -> None:
    found: list[dict[str, Any]] = []
    wrong: list[str] = []

    with gateway_watch(stack) as watch:
        pid = stack.pid("fastapi-app")
        for case in CASES:
            answer = upload(stack, case)
            error = answer.error
            line = {"case": case.name, "status": answer.status, "code": error["code"], "field": error.get("field")}
            found.append({**line, "sent_mib": answer.sent / MIB})
            expected = {"case": case.name, "status": case.status, "code": case.code, "field": case.field}
            if line != expected or case.words not in error["message"] or len(error["message"]) > 400:
                wrong.append(f"{case.name}: expected {expected} with {case.words!r}, got {line}: {error['message']}")
            if case.most_sent is not None and answer.sent > case.most_sent:
                wrong.append(f"{case.name}: {answer.sent:,} bytes were taken, at most {case.most_sent:,} should be")
    figures = {"gateway alone": watch.itself["gateway"], "with children": watch.family["gateway"], "disk": watch.disk}
    report("bad uploads", found)
    report("bad uploads, peaks", [{name: value / MIB for name, value in figures.items()}])

    assert not wrong, "\n".join(wrong)
    assert stored(stack, BAD) == []
    assert stack.pid("fastapi-app") == pid, "it was never started again"
    assert 0 < watch.itself["gateway"] < GATEWAY_BYTES
    assert watch.family["gateway"] < GATEWAY_BYTES + CHILD_BYTES + VALIDATION_BYTES
    # The test sends one upload at a time, and an upload has at most two files of at most UPLOAD_BYTES each.
    assert watch.disk < 2 * UPLOAD_BYTES + MIB


LANDING = [
    Case("an empty file", bytes_of(b""), 422, "empty_file", "file", "the file is empty"),
    Case("a zstd file", bytes_of(b"\x28\xb5\x2f\xfd" + bytes(100)), 422, "not_csv", "file", "zstd"),
    Case("NUL", bytes_of(b"time,a\n1,\0\n"), 422, "not_text", "file", "NUL"),
    Case(
        "a cell of 1 GB",
        repeated(b"time,a\n1,", b"9", GIGABYTE),
        422,
        "line_too_long",
        "file",
        "1,048,576",
        most_sent=16 * MIB,
    ),
    Case(
        "too large, in chunks",
        repeated(b"time,a\n", b"1,2\n", 3 * UPLOAD_BYTES),
        413,
        "too_large",
        "file",
        "MAX_UPLOAD_BYTES",
        most_sent=UPLOAD_BYTES + 32 * MIB,
    ),
    Case(
        "too large, declared",
        repeated(b"time,a\n", b"1,2\n", GIGABYTE),
        413,
        "too_large",
        "file",
        "MAX_UPLOAD_BYTES",
        declared=GIGABYTE,
        most_sent=16 * MIB,
    ),
    Case(
        "a packed body",
        gzip_bomb,
        415,
        "encoded_body",
        "Content-Encoding",
        "'gzip'",
        headers={"Content-Encoding": "gzip"},
    ),
]
"""Bodies for /upload/raw-data/<identifier>/train.csv, which checks bytes and line lengths and parses no rows."""


def test_nothing_lands_that_can_be_no_csv(stack: RunningStack) -> None:
    found: list[dict[str, Any]] = []
    with gateway_watch(stack) as watch:
        for case in LANDING:
            answer = send(
                stack.state["gateway_url"],
                "POST",
                f"/upload/raw-data/{BAD}/train.csv",
                headers={"x-api-key": key(stack), **case.headers},
                body=case.body(),
                declared=case.declared,
            )
            error = answer.error
            line = (answer.status, error["code"], error.get("field"))
            found.append({"case": case.name, "status": line[0], "code": line[1], "field": line[2]})
            assert line == (case.status, case.code, case.field), f"{case.name}: {error}"
            assert case.words in error["message"], f"{case.name}: {error}"
            assert case.most_sent is None or answer.sent <= case.most_sent, case.name
    report("bad files by bucket and key", found)

    assert stored(stack, BAD) == []
    assert 0 < watch.itself["gateway"] < GATEWAY_BYTES
    assert watch.disk < UPLOAD_BYTES + MIB


def odd_csv(path: Path) -> Path:
    """Write the seasonal data set with a constant, an empty and a quoted column, a short and a long gap."""
    header, *measured = seasonal_csv(path).read_text().splitlines()
    odd = [f'{line},7,,"{at % 48}.5"' for at, line in enumerate(measured)]
    del odd[700:703]
    del odd[200:240]
    path.write_text("\n".join([f"{header},seven,nothing,quoted", *odd]) + "\n")
    return path


@pytest.mark.long
def test_odd_but_honest_data_are_described_trained_on_and_answered(stack: RunningStack, tmp_path: Path) -> None:
    """Valid uploads with unusual columns and gaps, or with constant columns only, become served forecasts."""
    file = odd_csv(tmp_path / "odd.csv").read_bytes()
    (tmp_path / "still.csv").write_bytes(b"".join(lines(*(f"{60 * at},7,0.5" for at in range(200)))()))

    still = stack.upload("still", tmp_path / "still.csv")
    with stack.gateway as client:
        answer = client.post("/datasets/odd", files={"train": ("x", file)}, data={"settings": '{"EPOCHS": 1}'})
    assert answer.status_code == 202, answer.text
    told = answer.json()["report"]
    assert told["train"]["inserted_rows"] == 3, "a short gap is filled"
    assert told["train"]["segments"] == 2, "a long one cuts"
    assert told["constant_columns"] == {"seven": 7.0}
    assert list(told["dropped_columns"]) == ["nothing"]
    assert "quoted" in told["columns"], "quotes are CSV's own"

    odd_run, still_run = stack.wait_decided(answer.json()["pipeline_run_id"]), stack.wait_decided(still)
    assert odd_run["outcome"] == "promoted", odd_run["decision"]
    assert still_run["outcome"] == "promoted", still_run["decision"]
    assert any("all_constant" in reason for reason in still_run["decision"]["reasons"])

    for name, run in (("odd", odd_run), ("still", still_run)):
        stack.wait_served(name, run["decision"]["run_id"])
        with stack.gateway as client:
            body = client.get(f"/datasets/{name}/tail").json()
        forecast = stack.predict(body | {"identifier": name, "inference_length": 3})
        assert forecast.status_code == 200, forecast.text
        constants = {"odd": {"seven": 7.0}, "still": {"a": 7.0, "b": 0.5}}[name]
        for row in forecast.json()["predictions"]:
            for column, constant in constants.items():
                assert (row[column], row[f"{column}_lower"], row[f"{column}_upper"]) == (constant,) * 3
