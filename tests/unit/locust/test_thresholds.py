"""A load test passes only if its measurements prove it; each reason to fail is tested with one run."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "locust"


def load(name: str) -> ModuleType:
    """Import one file of the folder, which is not a package, because the name ``locust`` belongs to Locust itself."""
    spec = importlib.util.spec_from_file_location(f"load_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


thresholds, watch = load("thresholds"), load("watch")
PREDICT = thresholds.Entry("POST /predict", 1000, 0, median_ms=8, p95_ms=40, min_ms=3, max_ms=90)
UPLOAD = thresholds.Entry("POST /datasets/{identifier}", 3, 0, median_ms=300, p95_ms=900, min_ms=200, max_ms=900)
LIMITS = thresholds.Limits(required=("POST /predict", "POST /datasets/{identifier}"))
GOOD = thresholds.Evidence(
    entries=[PREDICT, UPLOAD],
    metrics={"flts_predictions_total": 1000.0, "flts_uploads_total": 3.0},
    answers=1000,
    distinct_answers=2,
)


def test_a_run_that_worked_passes() -> None:
    assert thresholds.reasons_to_fail(GOOD, LIMITS) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"entries": []}, "no traffic: not one request was made"),
        ({"entries": [replace(PREDICT, requests=0), UPLOAD]}, "no traffic: there was no POST /predict"),
        ({"entries": [PREDICT]}, "no traffic: there was no POST /datasets/{identifier}"),
        (
            {"entries": [replace(PREDICT, failures=2), UPLOAD], "errors": ["POST /predict: 503"]},
            "2 of 1003 requests failed, 0 may; most often POST /predict: 503",
        ),
        ({"entries": [replace(PREDICT, median_ms=51), UPLOAD]}, "median of POST /predict is 51 ms, above 50"),
        ({"entries": [replace(PREDICT, p95_ms=300), UPLOAD]}, "p95 of POST /predict is 300 ms, above 250"),
        (
            {"entries": [replace(PREDICT, median_ms=0, p95_ms=0, min_ms=0, max_ms=0), UPLOAD]},
            "no evidence: the times of POST /predict are 0",
        ),
        (
            {"entries": [replace(PREDICT, median_ms=7, p95_ms=7, min_ms=7, max_ms=7), UPLOAD]},
            "no evidence: all 1000 times of POST /predict are 7 ms",
        ),
        ({"metrics": {}}, "no evidence: no metric of the services was read"),
        ({"metrics": {"flts_predictions_total": None}}, "metric missing: flts_predictions_total"),
        ({"metrics": {"flts_predictions_total": 0.0}}, "metric constant: flts_predictions_total"),
        ({"distinct_answers": 1}, "answers constant: 1000 forecasts of different rows are all the same"),
    ],
)
def test_a_run_fails_with_its_reason(change: dict[str, object], reason: str) -> None:
    assert thresholds.reasons_to_fail(replace(GOOD, **change), LIMITS) == [reason]


def test_slow_uploads_are_not_slow_forecasts() -> None:
    slow = replace(UPLOAD, median_ms=20_000, p95_ms=30_000)
    assert thresholds.reasons_to_fail(replace(GOOD, entries=[PREDICT, slow]), LIMITS) == []


def page(born: float, success: float, failed: float = 0) -> str:
    return (
        f"process_start_time_seconds {born}\n"
        f'flts_predictions_total{{outcome="success"}} {success}\n'
        f'flts_predictions_total{{outcome="failed"}} {failed}\n'
    )


def test_a_metric_is_read_with_its_labels_and_summed_without() -> None:
    assert watch.value_of(page(1, 7, 2), 'flts_predictions_total{outcome="success"}') == 7
    assert watch.value_of(page(1, 7, 2), "flts_predictions_total") == 9
    assert watch.value_of(page(1, 7, 2), "flts_predictions") is None


def test_growth_is_summed_over_the_replicas_behind_one_address_and_never_taken_from_their_difference() -> None:
    name = 'flts_predictions_total{outcome="success"}'
    pages = iter([page(1, 10), page(2, 500), page(1, 13), page(2, 500)])
    watched = watch.MetricsWatch([("http://inference/metrics", [name, "flts_never_seen"])])

    for _ in range(4):
        watched.look(lambda _address: next(pages))

    assert watched._growth(name) == 3
    assert watched._growth("flts_never_seen") is None


def test_a_page_that_does_not_answer_is_no_zero() -> None:
    def away(_address: str) -> str:
        raise ConnectionRefusedError

    watched = watch.MetricsWatch([("http://inference/metrics", ["flts_predictions_total"])])
    watched.look(away)

    assert watched._growth("flts_predictions_total") is None


def test_shapes_end_at_the_users_asked_for_and_never_pass_them() -> None:
    # A child process imports Locust, because the import patches the standard library of the whole process.
    users = "[shapes.users_at(shape, 20, share / 10) for share in range(10)]"
    code = f"import shapes; print([{users} for shape in shapes.SHAPES])"
    printed = subprocess.run([sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True, check=True)

    assert printed.stdout.splitlines()[-1] == str(
        [[20] * 10, [5, 5, 5, 10, 10, 15, 15, 15, 20, 20], [5, 5, 5, 5, 20, 20, 5, 5, 5, 5]]
    )
