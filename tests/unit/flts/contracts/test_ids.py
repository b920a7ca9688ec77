from __future__ import annotations

import time

import pytest

from flts.contracts.ids import new_pipeline_run_id, run_created_seconds


def test_the_time_of_a_run_is_read_from_its_id() -> None:
    assert run_created_seconds("017f22e2-79b0-7cc3-98c4-dc0c0c07398f") == 1645557742.0  # example of RFC 9562, A.6


def test_ids_of_runs_sort_by_creation_and_carry_its_time() -> None:
    before = time.time()

    ids = [new_pipeline_run_id() for _ in range(1000)]

    assert ids == sorted(set(ids))
    assert run_created_seconds(ids[0]) == pytest.approx(before, abs=60)
