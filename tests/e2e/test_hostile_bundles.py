"""Hostile bundles of an attacker with write access to the bucket: none is loaded, and the old champion stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from flts.bundle.format import Bundle
from flts.bundle.load import fetch_bundle
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import ModelTraining
from tests.champions import Throne
from tests.hostile_bundles import ATTACKS, Attack, plant
from tests.made_series import make_series
from tests.memory_watch import MIB, MemoryWatch
from tests.reports import report
from tests.serving import request_of, window_bundle
from tests.stack import RunningStack

pytestmark = [pytest.mark.timeout(600), pytest.mark.long]

SERIES = make_series(400, ("a", "b"))
SERVER_BYTES = 400 * MIB
SHORT = {
    "another document than promised",
    "weights that are NaN",
    "a shape of 2^31",
    "2^31 cells out of small weights",
    "external data",
    "an unknown format version",
    "a pickle as model",
    "a zip with .. as model",
}
"""One attack of each kind; the unit tests of `make test` run every attack of the table against the same code."""


@pytest.fixture(scope="module")
def throne(stack: RunningStack) -> Iterator[Throne]:
    throne = Throne(stack)
    yield throne
    throne.close()


def attack(stack: RunningStack, throne: Throne, name: str, attacks: list[Attack]) -> None:
    made: tuple[Bundle, bytes] = window_bundle(SERIES, identifier=name)
    champion = throne.enthrone(made)
    body = request_of(SERIES, identifier=name, inference_length=3)
    before = stack.predict(body).json()
    found: list[dict[str, Any]] = []
    pids = {"inference": stack.pid("inference")}

    with MemoryWatch(pids) as watch:
        for each in attacks:
            refused = throne.refusals()
            throne.crown(made[0], plant(throne.store, made[0], each.make(*made)))
            reason = throne.problem(name, words=each.words, more_refusals_than=refused)
            listed = throne.listed(name)
            assert (listed["run_id"], listed["loaded"]) == (champion["run_id"], True), each.name
            answer = stack.predict(body)
            assert answer.status_code == 200, answer.text
            assert answer.json() == before, f"{each.name}: the champion answers as before"
            found.append({"attack": each.name, "reason": reason[:100]})
    report(f"hostile champions of {name}", found)
    report(f"hostile champions of {name}, peaks", [{"server alone": watch.itself["inference"] / MIB}])

    logged = [record.get("error", "") for record in stack.log_events("inference", "model_load_failed")]
    assert all(any(each.words in str(line) for line in logged) for each in attacks)
    assert {"inference": stack.pid("inference")} == pids, "it was never started again"
    assert 0 < watch.itself["inference"] < SERVER_BYTES
    better = throne.enthrone(window_bundle(SERIES, identifier=name, seed=1))
    assert stack.predict(body).json()["run_id"] == better["run_id"]
    assert throne.listed(name)["problem"] is None


def test_a_hostile_champion_is_not_loaded_and_the_old_one_answers_as_before(
    stack: RunningStack, throne: Throne
) -> None:
    attack(stack, throne, "usurped", [each for each in ATTACKS if each.name in SHORT])


def test_no_attack_of_the_table_dethrones_a_champion(stack: RunningStack, throne: Throne) -> None:
    attack(stack, throne, "usurped-often", ATTACKS)


def test_an_identifier_with_nothing_but_a_hostile_champion_is_unavailable_and_no_other_is(
    stack: RunningStack, throne: Throne
) -> None:
    throne.enthrone(window_bundle(SERIES, identifier="innocent"))
    hungry = next(each for each in ATTACKS if each.name == "2^31 cells out of small weights")
    made = window_bundle(SERIES, identifier="only-hostile")

    throne.crown(made[0], plant(throne.store, made[0], hungry.make(*made)))
    throne.problem("only-hostile", words=hungry.words)

    answer = stack.predict(request_of(SERIES, identifier="only-hostile"))
    assert answer.status_code == 503
    error = answer.json()["error"]
    assert (error["code"], error["field"]) == ("champion_unavailable", "identifier")
    assert hungry.words in error["message"]
    assert int(answer.headers["retry-after"]) >= 1
    assert stack.predict(request_of(SERIES, identifier="innocent")).status_code == 200


def test_eval_refuses_hostile_candidates_by_their_reasons_and_judges_the_good_ones(
    stack: RunningStack, throne: Throne, seasonal: dict[str, Any]
) -> None:
    """The test first forges records of a decided run: the GRU bundle needs 8 GiB, and the LSTM bundle is a pickle."""
    identifier, of_run = seasonal["identifier"], seasonal["pipeline_run_id"]
    forged = {
        "GRU": next(each for each in ATTACKS if each.name == "2^31 cells out of small weights"),
        "LSTM": next(each for each in ATTACKS if each.name == "a pickle as model"),
    }
    for model_type, each in forged.items():
        _forge(throne, identifier, of_run, model_type, each)
    served = stack.wait_served(identifier, seasonal["decision"]["run_id"])

    with stack.gateway as client:
        asked = client.post(f"/runs/{of_run}/evaluate")
    assert asked.status_code == 202, asked.text
    again = stack.wait_decided(asked.json()["pipeline_run_id"])

    rows = {row["model_type"]: row for row in again["scoreboard"]["candidates"]}
    for model_type, each in forged.items():
        assert (rows[model_type]["status"], rows[model_type]["passed"]) == ("unusable", False)
        [reason] = rows[model_type]["reasons"]
        assert reason["code"] == "bad_bundle"
        assert each.words in reason["message"]
    assert rows["PROPHET"]["status"] == "scored"
    assert again["outcome"] in {"promoted", "kept"}, again["decision"]
    assert again["decision"]["model_type"] in rows.keys() - forged.keys()
    assert stack.wait_served(identifier, again["decision"]["run_id"])["model_type"] == served["model_type"]


def _forge(throne: Throne, identifier: str, run: str, model_type: str, attack: Attack) -> None:
    """Replace the bundle in a run's record of a trained model with a hostile bundle."""
    key = f"{identifier}/{run}/trained/{model_type}.json"
    event = ModelTraining.model_validate(json.loads(throne.store.get("pipeline-runs", key)[0]))
    assert event.bundle is not None
    made = fetch_bundle(throne.store, event.bundle)
    claim: ClaimCheck = plant(throne.store, made[0], attack.make(*made))
    forged = event.model_copy(update={"bundle": claim})
    throne.store.put("pipeline-runs", key, forged.model_dump_json().encode())
