from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flts.contracts.lifecycle import ENDS, RunState, run_state
from flts.errors import RejectedError

ARCHITECTURE = Path(__file__).resolve().parents[4] / "docs" / "architecture.md"
DONE = {"status": "done"}
NOTHING: dict[str, Any] = {"announced": False, "stages": {}, "decision": None, "outcome": None}


@pytest.mark.parametrize(
    ("records", "state"),
    [
        ({}, RunState.RECORDED),
        ({"stages": {"upload": DONE}}, RunState.RECORDED),
        ({"announced": True, "stages": {"upload": DONE}}, RunState.ANNOUNCED),
        ({"announced": True, "stages": {"preprocess": {"status": "started"}}}, RunState.PREPROCESSING),
        ({"stages": {"preprocess": {"status": "failed"}}}, RunState.PREPROCESSING),
        ({"stages": {"preprocess": DONE}}, RunState.TRAINING),
        ({"stages": {"preprocess": DONE, "train-gru": {"status": "failed"}}}, RunState.TRAINING),
        ({"stages": {"preprocess": DONE, "train-gru": DONE, "eval": {"status": "started"}}}, RunState.DECIDING),
        ({"announced": True, "stages": {"eval": {"status": "started"}}}, RunState.DECIDING),
        ({"decision": {"decision": "promoted"}}, RunState.DECIDING),
        ({"decision": {"decision": "refused", "reasons": ["cancelled: wrong file"]}}, RunState.CANCELLED),
        ({"decision": {"decision": "refused", "cancelled": True}}, RunState.CANCELLED),
        ({"decision": {"decision": "refused", "reasons": ["no_candidate: cancelled: x"]}}, RunState.DECIDING),
        ({"decision": {"decision": "promoted"}, "outcome": {"outcome": "superseded"}}, RunState.SUPERSEDED),
        ({"outcome": {"outcome": "cancelled"}, "deleted": True}, RunState.DELETED),
    ],
)
def test_a_runs_state_follows_from_its_records(records: dict[str, Any], state: RunState) -> None:
    assert run_state(**{**NOTHING, **records}) is state


@pytest.mark.parametrize("end", sorted(ENDS))
def test_a_run_that_ended_stays_so_whatever_comes_late(end: RunState) -> None:
    late = {"announced": True, "stages": {"preprocess": DONE, "train-gru": DONE, "eval": DONE}, "decision": {}}

    assert run_state(**{**late, "outcome": {"outcome": end.value}}) is end


@given(
    st.permutations(["announced", "upload", "preprocess", "preprocess done", "train-lstm", "eval", "decision", "end"]),
    st.sampled_from(sorted(ENDS)),
)
def test_no_record_takes_a_run_back(order: list[str], end: RunState) -> None:
    order.remove("preprocess")
    order.insert(order.index("preprocess done"), "preprocess")  # a stage is never done before it starts
    records = {**NOTHING, "stages": {}}
    states = [run_state(**records)]
    for fact in order:
        if fact == "announced":
            records["announced"] = True
        elif fact == "decision":
            records["decision"] = {"decision": "promoted"}
        elif fact == "end":
            records["outcome"] = {"outcome": end.value}
        else:
            stage, _, status = fact.partition(" ")
            records["stages"][stage] = {"status": status or "started"}
        states.append(run_state(**records))

    steps = list(RunState)
    assert all(steps.index(before) <= steps.index(after) for before, after in pairwise(states))


def test_a_run_with_the_outcome_of_a_newer_release_has_ended() -> None:
    assert RunState.of_outcome({"outcome": "archived"}) is RunState.ENDED
    assert RunState.ENDED.over
    assert not RunState.ENDED.decided


@pytest.mark.parametrize("end", [None, "", 3])
def test_a_record_without_an_outcome_is_refused(end: object) -> None:
    with pytest.raises(RejectedError, match=f"'{'' if end == '' else end}'"):
        RunState.of_outcome({"outcome": end})


def test_the_drawing_and_the_table_have_the_states_that_there_are() -> None:
    section = ARCHITECTURE.read_text().partition("## A run's states")[2].partition("\n## ")[0]
    drawing, table = section.split("```")[1].removeprefix("text"), section.split("```")[2]

    drawn = set(re.findall("[a-z]{2,}", drawing.replace("all of these", "")))
    explained = re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)

    assert drawn == set(RunState)
    assert explained == list(RunState)
