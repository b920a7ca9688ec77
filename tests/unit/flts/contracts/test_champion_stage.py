from __future__ import annotations

from typing import Any

import pytest

from flts.contracts.champion_stage import (
    STAGES,
    is_champion,
    order_of,
    pointer_order,
    selected_event_id,
    stage_of,
)
from flts.contracts.ids import derived_event_id

OLD = "0197f000-0000-7000-8000-000000000001"
NEW = "0197f000-0000-7000-8000-000000000002"
ASCENDING = [
    (OLD, "provisional"),
    (NEW, "provisional"),
    (OLD, "decided"),
    (OLD, "refitted"),
    (OLD, "of a newer release"),
    (NEW, "decided"),
    (NEW, "refitted"),
]
"""Every champion is above every provisional pointer; then the run counts, then the stage."""


@pytest.mark.parametrize("higher", range(len(ASCENDING)))
@pytest.mark.parametrize("lower", range(len(ASCENDING)))
def test_pointers_are_ordered_by_champion_then_run_then_stage(lower: int, higher: int) -> None:
    assert (pointer_order(*ASCENDING[lower]) < pointer_order(*ASCENDING[higher])) == (lower < higher)


@pytest.mark.parametrize("pointer", [{}, {"stage": None}, {"stage": "decided"}])
def test_a_pointer_without_a_stage_is_decided(pointer: dict[str, Any]) -> None:
    stored = {"pipeline_run_id": OLD, **pointer}

    assert stage_of(stored) == "decided"
    assert order_of(stored) == pointer_order(OLD)
    assert is_champion(stored)


def test_a_provisional_pointer_names_no_champion() -> None:
    assert [is_champion({"stage": stage}) for stage in STAGES] == [False, True, True]


def test_each_stage_has_an_event_id_and_decided_has_that_of_earlier_releases() -> None:
    ids = [selected_event_id(OLD, stage) for stage in STAGES]

    assert len(set(ids)) == 3
    assert selected_event_id(OLD) == ids[1] == derived_event_id(OLD, "promotion")
