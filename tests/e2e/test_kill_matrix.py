"""The kill matrix: each service is killed at each kill point that a run passes, and the run survives each kill.

The test reads the points from an undisturbed run, so it also covers new points. `MUST_PASS` lists the points that the
run must contain, so that the test fails when a point disappears.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.audit import audit_at_rest
from tests.killing import SERVICES, Case, Killing, Matrix, cases_of
from tests.reports import report
from tests.stack import running_stack
from tests.swinging import write_swinging
from tests.trainers import INSTALLED

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

TINY = {
    "EPOCHS": "1",
    "HIDDEN_SIZE": "8",
    "NUM_LAYERS": "1",
    "BATCH_SIZE": "64",
    "POINTER_REFRESH_SECONDS": "10",
    "HORIZON": "6",
}
CONSUMES = ("message-read", "attempts/", "commit", "object-delete")
HAS_CHILD = ("child-start", "child-ready", "work")
TRAINS = (*CONSUMES, *HAS_CHILD, "object-read", "stages/", "model.onnx", "bundle.json", "produce")
RECORDS = ("record-begin", "record-end")
MUST_PASS = {
    "fastapi-app": (
        "upload-read",
        "{key}",
        "train.csv",
        "_open/",
        "run.json",
        "produce",
        "announced.json",
        "message-read",
    ),
    "preprocess": (
        *CONSUMES,
        *HAS_CHILD,
        "object-read",
        "stages/",
        "processed_data.parquet",
        "inference.json",
        "produce",
    ),
    **dict.fromkeys(INSTALLED, (*TRAINS, *RECORDS)),
    "nonml-baseline": TRAINS,
    "eval": (
        *CONSUMES,
        *HAS_CHILD,
        *("expected.json", "trained/", "stages/", "scoreboard-", "provisional.json", "decision.json"),
        *("{identifier}/current.json", "*/current.json", "record", "alias", "outcome.json", "_open/", "produce"),
        *("model-refit/", "refit.json", "refit-record"),
    ),
    "inference": ("message-read", "child-start", "cache-write", "object-read", "swap", "inference-logs/"),
    "inference-worker": (
        *CONSUMES,
        *("inference.json", "history.rows", "_leases/", "attempts/forecast", "object-read", "inference-logs/"),
        *("stages/", "produce"),
        "forecast.json",
    ),
}
"""Words that must occur in the names of a service's points, each in a point `.before` and a point `.after`."""

GIVES_UP = {
    "preprocess": "raw-data",
    **dict.fromkeys(INSTALLED, "training-data"),
    "eval": "model-training",
    "inference-worker": "inference-data",
}


@pytest.fixture(scope="module")
def killing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killing]:
    folder = tmp_path_factory.mktemp("kill-matrix")
    (folder / "points").mkdir()
    train, test = write_swinging(folder / "sample", train_rows=900, test_rows=150)
    with running_stack(folder / "home", KILL_POINTS=str(folder / "points"), **TINY) as stack:
        yield Killing(stack, folder / "points", train, test)


def test_every_service_is_killed_at_every_point_and_every_run_survives(killing: Killing) -> None:
    cases = cases_of(killing.observe("undisturbed"))
    assert not list(missing(cases)), "points that must be passed and are not"
    wanted = re.compile(os.environ.get("FLTS_KILLS", ""))
    chosen = [case for case in cases if wanted.search(str(case))]

    began = time.monotonic()
    rows = Matrix(killing).run(chosen)
    report("kill-matrix-duration", [{"kills": len(rows), "seconds": time.monotonic() - began}])
    report("kill-matrix", [*rows, *not_passed(cases)] if len(chosen) == len(cases) else rows)
    report("kill-matrix-accounts", [account.as_dict() for account in audit_at_rest(killing.stack)])

    failed = [f"{row['process']} {row['point']} {row['detail']}: {row['result']}" for row in rows if row["failed"]]
    assert not failed, "\n".join(failed)


def test_a_record_that_nobody_can_read_counts_as_one_dead_letter_whenever_its_service_is_killed(
    killing: Killing,
) -> None:
    before = {(one.topic, one.group): one.dead_letters for one in audit_at_rest(killing.stack)}
    cases = [
        (
            Case(group, group, f"produce.{when}", f"{group}.dead-letter/{{identifier}}"),
            topic,
            f"unreadable-{when}-{group}",
        )
        for group, topic in GIVES_UP.items()
        for when in ("before", "after")
    ]

    rows = []
    for case, topic, identifier in cases:
        seconds = killing.spoil(case, identifier, topic)
        rows.append({"service": case.program, "point": case.point, "detail": case.detail, "ready_seconds": seconds})

    report("kill-matrix-dead-letters", rows)
    sent = Counter(topic for _, topic, _ in cases)
    for one in audit_at_rest(killing.stack):
        assert one.dead_letters == before[one.topic, one.group] + sent[one.topic], one


def missing(cases: list[Case]) -> Iterator[str]:
    for program, words in MUST_PASS.items():
        for when in ("before", "after"):
            points = [f"{case.point} {case.detail}" for case in cases if case.program == program]
            passed = [point for point in points if f".{when} " in point]
            yield from (f"{program}: {word} {when}" for word in words if not any(word in point for point in passed))


def not_passed(cases: list[Case]) -> list[dict[str, Any]]:
    """Return a row for each service and kind of point that the service does not pass."""
    kinds = sorted({case.point for case in cases})
    passed = {(case.program, case.point) for case in cases}
    return [
        {"service": program, "point": kind, "result": "n/a"}
        for program in SERVICES
        for kind in kinds
        if (program, kind) not in passed
    ]
