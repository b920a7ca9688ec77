"""The stages of a champion, and the order of champion pointers.

A run names its champion in up to three stages. A provisional champion is served while its data set has no champion; a
decided one won the run; a refitted one is the decided one, fitted again on all rows. A pointer or message without
``stage`` is ``decided``: releases before this field wrote only decided ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

from flts.contracts.ids import derived_event_id

ChampionStage = Literal["provisional", "decided", "refitted"]
PROVISIONAL: Final = "provisional"
DECIDED: Final = "decided"
REFITTED: Final = "refitted"
STAGES: tuple[ChampionStage, ...] = get_args(ChampionStage)
"""From the earliest to the latest."""
_EVENT_NAMES: Mapping[ChampionStage, str] = {
    PROVISIONAL: "promotion-provisional",
    DECIDED: "promotion",  # the name of every release, so that a repeat by this release has the same event_id
    REFITTED: "promotion-refitted",
}

Order = tuple[bool, str, int]


def stage_of(record: Mapping[str, Any]) -> str:
    """Return the stage of a pointer or of a record of eval; the text of a newer release may be none of `STAGES`."""
    return str(record.get("stage") or DECIDED)


def is_champion(pointer: Mapping[str, Any]) -> bool:
    """Return whether a pointer names a champion; a provisional one only fills the place of a missing champion."""
    return stage_of(pointer) != PROVISIONAL


def pointer_order(pipeline_run_id: str, stage: str = DECIDED) -> Order:
    """Return the sort key of a pointer: a pointer is replaced only by a pointer with a greater key.

    Every champion is above every provisional pointer. Then the newer run is above, then the later stage. Run ids are
    UUIDv7, so their order is the order in time. A stage of a newer release is above the stages of this release.
    """
    rank = STAGES.index(stage) if stage in STAGES else len(STAGES)
    return stage != PROVISIONAL, pipeline_run_id, rank


def order_of(pointer: Mapping[str, Any]) -> Order:
    """Return the sort key of a stored pointer; see `pointer_order`."""
    return pointer_order(str(pointer.get("pipeline_run_id") or ""), stage_of(pointer))


def selected_event_id(pipeline_run_id: str, stage: ChampionStage = DECIDED) -> str:
    """Return the event_id of a run's `ModelSelected` at a stage."""
    return derived_event_id(pipeline_run_id, _EVENT_NAMES[stage])
