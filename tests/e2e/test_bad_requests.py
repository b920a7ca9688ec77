"""Bad requests to /predict, sent over HTTP to running servers: the answer to each of them, and the servers' memory."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.champions import Throne
from tests.made_series import START, STEP_SECONDS, make_series
from tests.memory_watch import MIB, MemoryWatch
from tests.raw_http import RawAnswer, send
from tests.reports import report
from tests.serving import window_bundle
from tests.stack import RunningStack

pytestmark = pytest.mark.timeout(300)

NAME = "asked-badly"
SERVER_BYTES = 400 * MIB
"""Limit in bytes of the inference server's own process, for any request; its README states it."""
GATEWAY_BYTES = 350 * MIB
BODY_LIMIT = 4 * MIB
"""MAX_REQUEST_BYTES of inference."""
PASSED_ON_LIMIT = 16 * MIB
"""MAX_PREDICT_BYTES of the gateway."""
GIGABYTE = 2**30
PIECE = 2**18
ROWS = 12


@pytest.fixture(scope="module")
def throne(stack: RunningStack) -> Iterator[Throne]:
    throne = Throne(stack)
    throne.enthrone(window_bundle(make_series(400, ("a", "b")), identifier=NAME))
    yield throne
    throne.close()


def data(count: int = ROWS, **columns: Any) -> dict[str, Any]:
    """Return good rows, with some columns replaced; a column that is None is removed."""
    good: dict[str, Any] = {"time": [START + STEP_SECONDS * at for at in range(count)]}
    good |= {name: [float(at % 5) for at in range(count)] for name in ("a", "b")}
    return {name: values for name, values in (good | columns).items() if values is not None}


def body(columns: dict[str, Any] | None = None, **more: Any) -> bytes:
    return json.dumps({"identifier": NAME, "data": data() if columns is None else columns, **more}).encode()


def raw(column: str, text: bytes) -> bytes:
    """Return a good request in which this JSON text replaces the values of one column."""
    return body(data(**{column: "HERE"})).replace(b'"HERE"', text)


def at_steps(*steps: int) -> bytes:
    return body(data(len(steps), time=[START + STEP_SECONDS * step for step in steps]))


def numbers(at: int, text: str) -> bytes:
    """Return a JSON list of numbers in which this text replaces the number at index `at`."""
    cells = ["1.5"] * ROWS
    cells[at] = text
    return ("[" + ",".join(cells) + "]").encode()


def endless(piece: bytes, total: int, start: bytes = b'{"data": {"a": [') -> Iterable[bytes]:
    return itertools.chain([start], itertools.repeat(piece * (PIECE // len(piece)), total // PIECE))


@dataclass(frozen=True)
class Case:
    """One request and the expected answer."""

    name: str
    body: bytes | Iterable[bytes]
    status: int
    code: str
    field: str | None
    words: str
    headers: dict[str, str] = field(default_factory=dict)
    declared: int | None = None
    most_sent: int | None = None
    """Most bytes that the client may have sent before the answer."""


NO_DATA = json.dumps({"identifier": NAME}).encode()
STEPS = list(range(ROWS))
TIMES = data()["time"]
CASES = [
    Case("an empty body", b"", 400, "bad_json", None, "the body is empty"),
    Case("no JSON", b"time,a,b\n1,2,3\n", 400, "bad_json", None, "not JSON"),
    Case("JSON cut short", body()[:-1], 400, "bad_json", None, "not JSON"),
    Case("a list", b"[1]", 422, "bad_request", None, "Expected object"),
    Case("null", b"null", 422, "bad_request", None, "Expected object"),
    Case("no data", NO_DATA, 422, "no_history", "data", "send at least 10 rows, because there are no stored rows"),
    Case("data without columns", body({}), 422, "no_history", "data", "because there are no stored rows"),
    Case("data that is a list", body([]), 422, "bad_request", "data", "Expected object"),  # type: ignore[arg-type] # wrong
    Case("no time column", body(data(time=None)), 422, "no_time_column", "index_col", "time, timestamp, ts, date"),
    Case("two time columns", body(data(ts=TIMES)), 422, "two_time_columns", "index_col", "time, ts"),
    Case("an absent index_col", body(index_col="when"), 422, "no_time_column", "index_col", "names when"),
    Case("a measured index_col", body(index_col="a"), 422, "unknown_column", "time", "it knows a, b"),
    Case(
        "a time twice", at_steps(*STEPS[:6], *STEPS[5:-1]), 422, "duplicate_times", "time", "repeats the row before it"
    ),
    Case(
        "times out of order",
        at_steps(*STEPS[::-1]),
        422,
        "unordered_times",
        "time",
        "row 2 (2018-02-06T00:00:00Z) is earlier",
    ),
    Case(
        "a gap of 13 rows",
        at_steps(*STEPS[:6], *(at + 13 for at in STEPS[6:])),
        422,
        "gap_in_rows",
        "time",
        "one step (2 min) apart",
    ),
    Case(
        "a gap of a year",
        at_steps(*STEPS[:6], *(at + 262_800 for at in STEPS[6:])),
        422,
        "gap_in_rows",
        "time",
        "one step (2 min) apart",
    ),
    Case("another step", at_steps(*(2 * at for at in STEPS)), 422, "gap_in_rows", "time", "one step (2 min) apart"),
    Case("a time that is none", body(data(time=["soon"] * ROWS)), 422, "bad_time", "time", "'soon'"),
    Case("times in milliseconds", at_steps(*(at * 10**9 for at in STEPS)), 422, "bad_time", "time", "milliseconds"),
    Case("a mix of times", raw("time", b'["2024-01-01", 5]'), 422, "bad_time", "time", "not a mix"),
    Case("a time of 4,000 digits", raw("time", b"[" + b"9" * 4000 + b"]"), 422, "bad_time", "time", "row 1"),
    Case("a time that is null", raw("time", b"[null]"), 422, "bad_time", "time", "row 1"),
    Case("one row", body(data(1)), 422, "too_few_rows", "data", "needs 10 rows, the request has 1"),
    Case("too few rows", body(data(9)), 422, "too_few_rows", "data", "needs 10 rows, the request has 9"),
    Case("no rows", body(data(0)), 422, "too_few_rows", "data", "the request has 0"),
    Case("too many rows", body(data(20_001)), 422, "too_many_rows", "data", "20001 rows are more than the 20000"),
    Case("unequal columns", body(data(a=[1.5])), 422, "unequal_columns", "a", "has 1 values, time has 12"),
    Case("a missing column", body(data(b=None)), 422, "missing_column", "b", "the model needs this column"),
    Case("an unknown column", body(data(c=[1.0] * ROWS)), 422, "unknown_column", "c", "it knows a, b"),
    Case(
        "200,000 columns",
        body({f"c{at}": [1.0] for at in range(200_000)} | data()),
        422,
        "unknown_column",
        "c0",
        "it knows a, b",
    ),
    Case("text in a number", raw("a", numbers(3, '"x"')), 422, "bad_number", "a", "row 4"),
    Case(
        "a number with a unit", raw("a", numbers(3, '"1.5 kW"')), 422, "bad_number", "a", "as the files of the data set"
    ),
    Case("NaN", raw("a", numbers(3, "NaN")), 400, "bad_json", None, "numbers that are not known are null"),
    Case("Infinity", raw("a", numbers(3, "-Infinity")), 400, "bad_json", None, "not JSON"),
    Case("a number too large", raw("a", numbers(3, "1e999")), 422, "bad_number", "a", "out of range"),
    Case(
        "a number of 4,000 digits",
        raw("a", numbers(3, "9" * 4000)),
        422,
        "bad_number",
        "a",
        "row 4: Number out of range",
    ),
    Case("a column that is text", body(data(a="1,2,3")), 422, "bad_column", "a", "a list of numbers and nulls"),
    Case("a column that is null", raw("a", b"null"), 422, "bad_column", "a", "a list of numbers and nulls"),
    Case("a list in a number", raw("a", numbers(3, "[1]")), 422, "bad_number", "a", "row 4"),
    Case("horizon 0", body(inference_length=0), 422, "bad_horizon", "inference_length", "1 to 2016; got 0"),
    Case("horizon -1", body(inference_length=-1), 422, "bad_horizon", "inference_length", "got -1"),
    Case("horizon 1e9", body(inference_length=10**9), 422, "bad_horizon", "inference_length", "got 1000000000"),
    Case(
        "horizon of 4,000 digits",
        body().replace(b'{"id', b'{"inference_length": ' + b"9" * 4000 + b', "id', 1),
        422,
        "bad_horizon",
        "inference_length",
        "99999999...",
    ),
    Case("horizon 1.5", body(inference_length=1.5), 422, "bad_request", "inference_length", "Expected int"),
    Case("horizon as text", body(inference_length="6"), 422, "bad_request", "inference_length", "Expected int"),
    Case("horizon true", body(inference_length=True), 422, "bad_request", "inference_length", "Expected int"),
    Case("an unknown field", body(horizon=3), 422, "bad_request", "horizon", "unknown field"),
    Case("an unknown identifier", body(identifier="nobody"), 404, "unknown_identifier", "identifier", "nobody"),
    Case(
        "an identifier with dots",
        body(identifier="../../x"),
        422,
        "bad_identifier",
        "identifier",
        "starts with a letter or digit",
    ),
    Case(
        "an identifier of NUL",
        body(identifier="a\0b"),
        422,
        "bad_identifier",
        "identifier",
        "starts with a letter or digit",
    ),
    Case("an identifier of 1,024 bytes", body(identifier="x" * 1024), 422, "bad_request", "identifier", "256"),
    Case("an identifier that is a number", body(identifier=7), 422, "bad_request", "identifier", "Expected str"),
    Case("another config_hash", body(config_hash="0" * 64), 409, "champion_changed", "config_hash", "c" * 64),
    Case(
        "100,000 levels of lists",
        b'{"data": ' + b"[" * 100_000,
        422,
        "bad_request",
        "data",
        "Expected object, got array",
    ),
    Case(
        "100,000 levels in a column",
        raw("a", b"[" * 100_000 + b"]" * 100_000),
        400,
        "bad_json",
        None,
        "recursion depth",
    ),
    Case(
        "100,000 levels of objects",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        422,
        "bad_request",
        "a",
        "unknown field a",
    ),
    Case("NUL", b"\0" + body(), 400, "bad_json", None, "not JSON"),
    Case("NUL in a text", raw("time", b'["\0"]'), 400, "bad_json", None, "JSON is malformed"),
    Case("Latin-1", b'{"identifier": "\xe9", "data": {}}', 400, "bad_json", None, "0xe9"),
    Case("UTF-16", body().decode().encode("utf-16"), 400, "bad_json", None, "not JSON"),
    Case("a half surrogate", body().replace(b"asked-badly", rb"\ud800"), 400, "bad_json", None, "surrogate"),
    Case(
        "a packed body",
        gzip.compress(body()),
        415,
        "encoded_body",
        "Content-Encoding",
        "not unpacked here",
        headers={"Content-Encoding": "gzip"},
    ),
    Case("a cell of 3 MB", raw("a", numbers(3, "1" * 3_000_000)), 422, "bad_number", "a", "row 4: Number out of range"),
    Case("a text of 3 MB", raw("time", b'["' + b"x" * 3_000_000 + b'"]'), 422, "bad_time", "time", "row 1"),
    Case(
        "a million numbers",
        raw("a", b"[" + b"1," * 1_000_000 + b"1]"),
        422,
        "unequal_columns",
        "a",
        "has 1000001 values, time has 12",
    ),
    Case(
        "a cell of 1 GB, declared",
        endless(b"9", GIGABYTE),
        413,
        "too_large",
        "data",
        "larger than 4194304 bytes",
        declared=GIGABYTE,
        most_sent=16 * MIB,
    ),
    Case(
        "a cell of 1 GB, in chunks",
        endless(b"9", GIGABYTE),
        413,
        "too_large",
        "data",
        "larger than 4194304 bytes",
        most_sent=128 * MIB,
    ),
]
PASSED_ON = [
    Case("no data", NO_DATA, 422, "no_history", "data", "because there are no stored rows"),
    Case("NaN", raw("a", numbers(3, "NaN")), 400, "bad_json", None, "numbers that are not known are null"),
    Case("horizon 0", body(inference_length=0), 422, "bad_horizon", "inference_length", "1 to 2016"),
    Case("an unknown identifier", body(identifier="nobody"), 404, "unknown_identifier", "identifier", "nobody"),
    Case("larger than inference takes", b" " * (BODY_LIMIT + 1), 413, "too_large", "data", "MAX_REQUEST_BYTES"),
    Case(
        "a packed body",
        gzip.compress(body()),
        415,
        "encoded_body",
        "Content-Encoding",
        "'gzip'",
        headers={"Content-Encoding": "gzip"},
    ),
    Case(
        "a cell of 1 GB, declared",
        endless(b"9", GIGABYTE),
        413,
        "too_large",
        "data",
        "MAX_PREDICT_BYTES",
        declared=GIGABYTE,
        most_sent=16 * MIB,
    ),
    Case(
        "a cell of 1 GB, in chunks",
        endless(b"9", GIGABYTE),
        413,
        "too_large",
        "data",
        "MAX_PREDICT_BYTES",
        most_sent=PASSED_ON_LIMIT + 128 * MIB,
    ),
]


def ask(url: str, case: Case) -> RawAnswer:
    headers = {"Content-Type": "application/json", **case.headers}
    return send(url, "POST", "/predict", headers=headers, body=case.body, declared=case.declared)


@pytest.mark.usefixtures("throne")
@pytest.mark.parametrize(("to", "cases"), [("inference", CASES), ("gateway", PASSED_ON)])
def test_every_bad_request_is_refused_to_the_letter_and_costs_the_server_little(
    stack: RunningStack, to: str, cases: list[Case]
) -> None:
    found: list[dict[str, Any]] = []
    wrong: list[str] = []
    url = stack.state[f"{to}_url"]
    pids = {"inference": stack.pid("inference"), "gateway": stack.pid("fastapi-app")}

    with MemoryWatch(pids) as watch:
        for case in cases:
            answer = ask(url, case)
            error = answer.error
            line = {"case": case.name, "status": answer.status, "code": error["code"], "field": error.get("field")}
            found.append({**line, "sent_mib": answer.sent / MIB})
            expected = {"case": case.name, "status": case.status, "code": case.code, "field": case.field}
            if line != expected or case.words not in error["message"] or len(error["message"]) > 1000:
                wrong.append(f"{case.name}: expected {expected} with {case.words!r}, got {line}: {error['message']}")
            if case.most_sent is not None and answer.sent > case.most_sent:
                wrong.append(f"{case.name}: {answer.sent:,} bytes were taken, at most {case.most_sent:,} should be")
    report(f"bad requests to {to}", found)
    report(f"bad requests to {to}, peaks", [{name: held / MIB for name, held in watch.itself.items()}])

    assert not wrong, "\n".join(wrong)
    assert {"inference": stack.pid("inference"), "gateway": stack.pid("fastapi-app")} == pids
    assert 0 < watch.itself["inference"] < SERVER_BYTES
    assert 0 < watch.itself["gateway"] < GATEWAY_BYTES
    good = send(url, "POST", "/predict", headers={"Content-Type": "application/json"}, body=body(inference_length=3))
    assert good.status == 200, good.body
    assert len(good.json()["predictions"]) == 3


@pytest.mark.usefixtures("throne")
def test_rows_without_a_single_number_are_answered_and_counted(stack: RunningStack) -> None:
    """Missing cells are filled as in training; the answer counts them, so that the caller can judge the forecast."""
    answer = stack.predict(json.loads(body(data(a=[None] * ROWS, b=[None] * ROWS))))

    assert answer.status_code == 200, answer.text
    assert answer.json()["imputed_cells"] == 2 * 10
