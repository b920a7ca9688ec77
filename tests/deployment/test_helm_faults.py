"""The cluster itself fails: its API server is away for a minute; its node is stopped and restarted during a run.

The commands that stop and start them depend on the cluster; the environment names them.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.backends_away import Asker
from tests.cluster import Release, command, kubectl, release
from tests.eventually import eventually
from tests.helm_pipeline import HelmPipeline
from tests.reports import report
from tests.swinging import write_swinging

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

AWAY_SECONDS = 60.0
BACK_SECONDS = 120.0
"""Longest time in seconds from the first answer of the restarted node's API server to the first forecast."""
COMMAND_SECONDS = 300
DECIDED_SECONDS = 600
SERVED_DATA = "sample"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    with release("flts-test", tmp_path_factory.mktemp("helm")) as made:
        made.install()
        stack = HelmPipeline(made)
        eventually(lambda: stack.champion(SERVED_DATA), "the sample is served", timeout=600, every=1)
        yield made


def commands(*names: str) -> list[list[str]]:
    """Return the commands in these variables; skip the test if a variable is not set."""
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not set: this cluster is neither stopped nor started by tests")
    return [shlex.split(os.environ[name]) for name in names]


def api_answers() -> bool:
    return kubectl("get", "--raw", "/readyz", "--request-timeout", "3s", check=False) == "ok"


def test_forecasts_and_runs_go_on_while_the_api_server_is_away(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    stop, start = commands("FLTS_TEST_CLUSTER_API_STOP", "FLTS_TEST_CLUSTER_API_START")
    stack = HelmPipeline(request.getfixturevalue("installed"))
    question, url = stack.question(SERVED_DATA), stack.state["inference_url"]
    with Asker(url, question) as kept, Asker(url, question, keep_alive=False) as fresh:
        run_id = stack.start_training("without-api", *write_swinging(tmp_path))
        began = time.monotonic()
        command(*stop, timeout=COMMAND_SECONDS)
        try:
            assert not api_answers()
            eventually(lambda: time.monotonic() - began >= AWAY_SECONDS, "a minute is over", timeout=AWAY_SECONDS + 30)
        finally:
            command(*start, timeout=COMMAND_SECONDS)
        eventually(api_answers, "the API server is back", timeout=60, every=1)
        stack.wait_decided(run_id, timeout=DECIDED_SECONDS)
    report(
        "helm-api-away",
        [
            {
                "connection": name,
                "asked": asker.asked,
                "failed": len(asker.failures),
                "slowest s": asker.slowest_seconds,
            }
            for name, asker in (("kept", kept), ("new each time", fresh))
        ],
    )
    stack.assert_undisturbed("without-api", run_id)
    assert kept.failures == []
    assert fresh.failures == []


def test_a_node_that_is_stopped_in_mid_run_and_started_again_needs_nobody(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    stop, start = commands("FLTS_TEST_CLUSTER_STOP", "FLTS_TEST_CLUSTER_START")
    stack = HelmPipeline(request.getfixturevalue("installed"))
    question = stack.question(SERVED_DATA)
    run_id = stack.start_training("node-stopped", *write_swinging(tmp_path))

    command(*stop, timeout=COMMAND_SECONDS)
    stopped = time.monotonic()
    command(*start, timeout=COMMAND_SECONDS)
    eventually(api_answers, "the API server is back", timeout=COMMAND_SECONDS, every=1)
    began = time.monotonic()

    def answers() -> bool:
        try:
            return stack.predict(question).is_success
        except httpx.HTTPError:
            return False

    eventually(answers, "forecasts are back", timeout=2 * BACK_SECONDS, every=0.5)
    back = time.monotonic() - began

    ended = stack.wait_decided(run_id, timeout=DECIDED_SECONDS, through_faults=True)
    decided = time.monotonic() - began
    report(
        "helm-node-stopped",
        [
            {
                "node back after s": began - stopped,
                "forecasts s": back,
                "decided s": decided,
                "outcome": ended["outcome"],
            }
        ],
    )
    assert back <= BACK_SECONDS
    stack.assert_undisturbed("node-stopped", run_id)
