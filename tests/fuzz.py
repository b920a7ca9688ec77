"""Random and damaged files into the reader and the gateway: ``python -m tests.fuzz --seconds 1800``.

Each file is one of `tests.case_files`, changed at random and read with random settings. The reader and the check of an
upload must accept it or raise an `FltsError` within `MOST_SECONDS`; the gateway must not answer with a status of 500
and above. The seed and the number of a file determine the file. A file that fails is kept, and named with its settings.
"""

from __future__ import annotations

import argparse
import faulthandler
import gzip
import io
import json
import logging
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fastapi.testclient import TestClient
from pydantic import ValidationError

from flts.errors import FltsError
from flts.ingest.reader import read_table
from flts.ingest.report import validation_report
from gateway_container.checking import CheckSettings
from tests.case_files import CASES
from tests.gateway import make_gateway

FOLDER = Path(tempfile.gettempdir()) / "flts-fuzz"
"""Files that failed, and the one that is being read."""
MOST_SECONDS = 20
"""Of processor time for one file, so that a busy machine fails none. The slowest file needs less than 2 s."""
GATEWAY_SHARE = 0.05
"""Share of the files that are also uploaded."""
MOST_FAILURES = 10
"""After so many failures the run ends; they have few causes."""
TOKENS = (
    *(b"\0", b"\r", b"\n", b"\r\n", b'"', b'""', b"'", b",", b";", b"\t", b"|", b" ", b"#", b"\\", b"=", b"%", b"-"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xc3", b"\xe2\x88\x92", b"\xa0", b"\x1f\x8b", b"PAR1", b"PK\3\4"),
    *(b"1e999", b"-1e-999", b"nan", b"inf", b"0x1F", b"1_000", b"1.234.567,8", b"1,2,3", b"9" * 40, b"9" * 5000),
    *(b"0001-01-01", b"9999-12-31 23:59:59", b"2024-02-30", b"2023-10-29 02:30:00", b"24:00", b"25:61", b"13/13/2024"),
    *(b"1970-01-01T00:00:00Z", b"2024-01-01T00:00:00+23:59", b"1e18", b"99999999999999999999", b"45000.5", b"1900"),
    *(b"time", b"unique_id", b"total", b"sep=;", b"True", b"Q5 2020", b"-0", b"+", b"\x85"),
    *(text.encode() for text in ("größe", "\u0661\u0662", "\U0001f4c8")),
)
"""Text that a reader may take for something else."""
SETTINGS: dict[str, tuple[str, ...]] = {
    "time_zone": ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"),
    "step": ("1 h", "15 min", "1 day", "1 business day", "1 month", "1 month, last day", "1 year", "1 s"),
    "time_format": ("DD/MM/YYYY HH:mm", "MM/DD/YYYY", "epoch", "epoch ms", "excel", "year", "%Y-%m-%d"),
    "time_column": ("time", "date", "flow", "Date,Time", "time,flow"),
    "series_column": ("unique_id", "station", "flow", "time"),
    "decimal": (".", ","),
    "thousands": ("none", ".", ",", "space", "apostrophe"),
    "missing": ("-999", "defekt,0", "0"),
    "encoding": ("utf-8", "windows-1252", "utf-16", "utf-32", "utf-7", "ascii", "shift_jis"),
    "skip_rows": ("0", "1", "3", "1000"),
    "duplicates": ("mean", "last", "first", "refuse"),
    "ignore_columns": ("flow", "time"),
    "targets": ("flow", "temp", "nothing"),
    "train_test_split": ("0.01", "0.5", "0.99"),
    "max_gap_steps": ("0", "1000"),
    "handle_nans": ("false",),
    "nans_drop_rows": ("true",),
}


@dataclass(frozen=True)
class Sample:
    """A file, perhaps a test file, and settings."""

    train: bytes
    test: bytes | None
    settings: dict[str, str]


def main() -> int:
    """Return 0 if no file failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first file, to repeat a failure")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    np.seterr(all="ignore")
    outcomes: Counter[str] = Counter()
    failures, slowest = 0, 0.0
    end = time.monotonic() + given.seconds
    number = given.first
    _say(f"seed {given.seed}")
    with tempfile.TemporaryDirectory() as folder, make_gateway(Path(folder)).client() as client:
        while time.monotonic() < end and failures < MOST_FAILURES:
            source = random.Random(f"{given.seed} {number}")
            sample = _sample(source)
            started = time.process_time()
            try:
                with _limited(sample, given.seed, number):
                    outcomes[_checked(sample)] += 1
                    if source.random() < GATEWAY_SHARE:
                        outcomes[_uploaded(client, sample, number)] += 1
            except Exception:  # noqa: BLE001 - every other exception is what this program searches for
                failures += 1
                _keep(sample, given.seed, number)
            slowest = max(slowest, time.process_time() - started)
            number += 1
    shown = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common(12))
    _say(f"{number - given.first} files, slowest {slowest:.1f} s, {failures} failures: {shown}")
    return 1 if failures or number == given.first else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _checked(sample: Sample) -> str:
    """Read and check the files as an upload does; return what came of it."""
    try:
        settings = CheckSettings(**sample.settings)  # type: ignore[arg-type] - pydantic checks the types
    except ValidationError:
        return "bad settings"
    try:
        train = read_table(io.BytesIO(sample.train), limits=settings, settings=settings, name="train")
        test = None
        if sample.test is not None:
            source = io.BytesIO(sample.test)
            test = read_table(source, limits=settings, settings=settings, like=train.time_format, name="test")
        report = validation_report(train, test, settings, settings)
        json.dumps(report.as_dict(), allow_nan=False)
    except FltsError as error:
        if not error.message or not error.field or error.code == "rejected":
            raise AssertionError from error
        return str(error.code)
    assert (np.diff(train.times) > 0).all()
    assert train.values.shape == (train.rows, len(train.columns))
    return "accepted"


def _uploaded(client: TestClient, sample: Sample, number: int) -> str:
    files = {"train": ("train.csv", sample.train, "text/csv")}
    if sample.test is not None:
        files["test"] = ("test.csv", sample.test, "text/csv")
    settings = {name.upper(): value for name, value in sample.settings.items()}
    answer = client.post(f"/datasets/fuzz-{number}", files=files, data={"settings": json.dumps(settings)})
    assert answer.status_code < 500, answer.text
    return f"answers {answer.status_code}"


def _sample(source: random.Random) -> Sample:
    case = source.choice(CASES)
    settings = {name.lower(): value for name, value in case.settings.items()}
    for name in source.sample(sorted(SETTINGS), source.choice((0, 0, 0, 1, 1, 2))):
        settings[name] = source.choice(SETTINGS[name])
    test = case.test
    if test is None and source.random() < 0.1:
        test = source.choice(CASES).train
    return Sample(_changed(case.train, source), None if test is None else _changed(test, source), settings)


def _changed(data: bytes, source: random.Random) -> bytes:
    if source.random() < 0.02:
        return source.randbytes(source.randrange(2000))
    for _ in range(source.choice((0, 1, 1, 2, 3, 6))):
        data = source.choice(_CHANGES)(data, source)
    return gzip.compress(data, mtime=0) if source.random() < 0.03 else data


def _span(data: bytes, source: random.Random) -> tuple[int, int]:
    """Return a span of the bytes, most often a short one and most often near the start."""
    at = int(len(data) * source.random() ** source.choice((1, 4)))
    return at, min(len(data), at + int(2 ** source.uniform(0, 12)))


def _flip(data: bytes, source: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(min(len(changed), source.choice((1, 3, 30)))):
        changed[source.randrange(len(changed))] = source.randrange(256)
    return bytes(changed)


def _cut(data: bytes, source: random.Random) -> bytes:
    start, stop = _span(data, source)
    return data[:start] + data[stop:]


def _end(data: bytes, source: random.Random) -> bytes:
    return data[: source.randrange(len(data) + 1)]


def _repeat(data: bytes, source: random.Random) -> bytes:
    start, stop = _span(data, source)
    return data[:stop] + data[start:stop] * source.choice((1, 2, 20)) + data[stop:]


def _insert(data: bytes, source: random.Random) -> bytes:
    for _ in range(source.choice((1, 1, 5))):
        at = _span(data, source)[0]
        data = data[:at] + source.choice(TOKENS) * source.choice((1, 1, 2, 50)) + data[at:]
    return data


def _replace(data: bytes, source: random.Random) -> bytes:
    """Replace a separator, a mark or a digit everywhere or a few times."""
    old, new = (
        source.choice((b",", b";", b"\t", b".", b"-", b":", b" ", b"\n", b"0", b"2", b"T")),
        source.choice(TOKENS),
    )
    return data.replace(old, new[:8], source.choice((1, 5, -1)))


def _cell(data: bytes, source: random.Random) -> bytes:
    """Replace cells of a line."""
    lines = data.split(b"\n")
    for _ in range(source.choice((1, 3, 40))):
        at = source.randrange(len(lines))
        cells = lines[at].split(b",")
        cells[source.randrange(len(cells))] = source.choice(TOKENS)
        lines[at] = b",".join(cells)
    return b"\n".join(lines)


def _shuffle(data: bytes, source: random.Random) -> bytes:
    lines = data.split(b"\n")
    start, stop = sorted(source.randrange(len(lines) + 1) for _ in range(2))
    lines[start:stop] = source.sample(lines[start:stop], stop - start)
    return b"\n".join(lines)


def _join(data: bytes, source: random.Random) -> bytes:
    """Put a part of another file after a part of this one."""
    other = source.choice(CASES).train
    return _end(data, source) + other[_span(other, source)[0] :]


_CHANGES = (_flip, _cut, _end, _repeat, _insert, _insert, _replace, _cell, _cell, _shuffle, _join)


@contextmanager
def _limited(sample: Sample, seed: int, number: int) -> Iterator[None]:
    """Raise after `MOST_SECONDS`; end the program with a traceback if the work sleeps or does not end."""

    def late(*_: object) -> None:
        msg = f"more than {MOST_SECONDS} s of processor time"
        raise TimeoutError(msg)

    # If the process dies of this file, it is the newest file of the folder.
    _write(sample, seed, number, f"{seed}-running")
    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    faulthandler.dump_traceback_later(MOST_SECONDS * 15, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0)


def _keep(sample: Sample, seed: int, number: int) -> None:
    path = _write(sample, seed, number, f"{seed}-{number}")
    traceback.print_exc()
    _say(f"FAILED {path} settings {sample.settings}: --seed {seed} --first {number} --seconds 0.1")


def _write(sample: Sample, seed: int, number: int, name: str) -> Path:
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.train"
    path.write_bytes(sample.train)
    if sample.test is not None:
        path.with_suffix(".test").write_bytes(sample.test)
    values = {"seed": seed, "first": number, "settings": sample.settings}
    path.with_suffix(".json").write_text(json.dumps(values))
    return path


if __name__ == "__main__":
    raise SystemExit(main())
