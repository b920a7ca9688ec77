"""A running installation is upgraded from the last release to this code and rolled back, on TARGET=compose|helm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import load_images_of, release
from tests.compose_pipeline import released_compose
from tests.docker import ROOT
from tests.helm import CHART, container
from tests.helm_pipeline import HelmPipeline, values
from tests.pipeline import Pipeline
from tests.released import MODELS, RELEASES, assert_same_answer, code_of
from tests.reports import report
from tests.stack import SMALL, now
from tests.swinging import write_swinging
from tests.targets import TARGET
from tests.trainers import of_models
from tools.images import version

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(TARGET == "embedded", reason="tests/e2e/test_upgrade.py is this test for TARGET=embedded"),
]
COMMIT = RELEASES[-1].commit
SERVED = "served"
"""Identifier whose champion the release promoted."""
SECONDS = 600
"""Timeout of a run in seconds; the machine is busy, because it starts two installations in succession."""


@dataclass(frozen=True)
class Installation:
    """A running release, and the ways to replace it."""

    pipeline: Pipeline
    upgrade: Callable[[], None]
    roll_back: Callable[[], None]
    images: Callable[[], set[str]]
    """Return the images of the running containers."""


@dataclass
class Seen:
    """Answers and runs of an installation before, between and after the replacements."""

    forecasts: list[dict[str, Any]] = field(default_factory=list)
    """Forecasts of the release's champion: before the upgrade, before the rollback, and after the rollback."""
    runs: list[dict[str, Any]] = field(default_factory=list)
    """Runs that were in training during the upgrade and during the rollback."""
    retrained: dict[str, Any] = field(default_factory=dict)
    """A run of the new code on the data and settings of the release's champion."""
    newcomer: list[dict[str, Any]] = field(default_factory=list)
    """Forecasts of the champion that the new code promoted: before and after the rollback."""
    outcomes: list[dict[str, str]] = field(default_factory=list)
    """Outcomes of all runs: before each replacement and at the end."""
    tags: list[set[str]] = field(default_factory=list)
    """Tags of FLTS's running images: of the release, after the upgrade, and after the rollback."""
    dead_letters: int = 0


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    code, folder = code_of(COMMIT, tmp_path_factory.mktemp("code")), tmp_path_factory.mktemp("installation")
    files = write_swinging(tmp_path_factory.mktemp("sample"), train_rows=2_000, test_rows=500)
    seen, began = Seen(), now()
    with {"compose": on_compose, "helm": on_helm}[TARGET](folder, code) as installed:
        stack = installed.pipeline
        champion = stack.wait_decided(stack.upload(SERVED, *files), timeout=SECONDS)["decision"]["run_id"]
        stack.wait_served(SERVED, champion)
        question = stack.question(SERVED)
        seen.tags.append(tags(installed.images()))

        def replace(step: Callable[[], None], identifier: str) -> float:
            """Replace the code in the middle of a run; return the seconds until everything was ready."""
            seen.forecasts.append(stack.forecast(question))
            seen.outcomes.append(stack.outcomes())
            run_id, before = stack.start_training(identifier, *files), now()
            step()
            ready = now() - before
            seen.tags.append(tags(installed.images()))
            seen.runs.append(stack.wait_decided(run_id, timeout=SECONDS, through_faults=True))
            return ready

        installed_s = now() - began
        upgraded_s = replace(installed.upgrade, "upgraded")
        seen.retrained = stack.wait_decided(
            stack.post("/runs", json={"identifier": SERVED})["pipeline_run_id"], timeout=SECONDS
        )
        stack.wait_served("upgraded", seen.runs[0]["decision"]["run_id"])
        asked = stack.question("upgraded")
        seen.newcomer.append(stack.forecast(asked))
        rolled_back_s = replace(installed.roll_back, "rolled-back")
        seen.forecasts.append(stack.forecast(question))
        seen.newcomer.append(stack.forecast(asked))
        seen.outcomes.append(stack.outcomes())
        seen.dead_letters = stack.dead_letters()
    row = {"installed s": installed_s, "upgraded s": upgraded_s, "rolled back s": rolled_back_s, "all s": now() - began}
    report(f"upgrade-{TARGET}", [row])
    return seen


def test_each_step_replaces_every_image(seen: Seen) -> None:
    assert seen.tags == [{COMMIT}, {version()}, {COMMIT}]


def test_the_releases_champion_answers_as_before(seen: Seen) -> None:
    before, upgraded, rolled_back = seen.forecasts
    assert_same_answer(upgraded, before)
    assert_same_answer(rolled_back, before)


@pytest.mark.parametrize("step", ["upgrade", "rollback"])
def test_a_run_in_training_ends_as_if_nothing_had_happened(seen: Seen, step: str) -> None:
    run = seen.runs[["upgrade", "rollback"].index(step)]
    assert run["outcome"] == "promoted", run["decision"]
    assert {run["trained"][kind]["status"] for kind in MODELS} == {"SUCCESS"}


def test_what_the_release_had_trained_is_not_trained_again(seen: Seen) -> None:
    trained = of_models(seen.retrained["trained"])
    assert {kind for kind, one in trained.items() if one["reused"]} == set(MODELS)
    # LINEAR, which the release does not train, may replace the champion.
    assert seen.retrained["decision"]["model_type"] == "LINEAR" or seen.retrained["outcome"] == "kept"


def test_the_release_serves_the_champion_that_this_code_promoted(seen: Seen) -> None:
    before, after = seen.newcomer
    assert_same_answer(after, before)


def test_no_outcome_changes_and_nothing_is_given_up(seen: Seen) -> None:
    for before, after in zip(seen.outcomes, seen.outcomes[1:], strict=False):
        assert after.items() >= before.items()
    assert seen.dead_letters == 0


def tags(images: set[str]) -> set[str]:
    return {image.rpartition(":")[2] for image in images if image.startswith("flts/")}


@contextmanager
def on_compose(folder: Path, code: Path) -> Iterator[Installation]:
    with released_compose(folder, code, COMMIT, **SMALL) as stack:

        def images() -> set[str]:
            return {each["Image"] for each in stack.made.containers().values() if each["State"] == "running"}

        yield Installation(stack, partial(stack.up, ROOT, SMALL), partial(stack.up, code, SMALL, tag=COMMIT), images)


@contextmanager
def on_helm(folder: Path, code: Path) -> Iterator[Installation]:
    chart = code / CHART.relative_to(ROOT)
    workloads = yaml.safe_load((chart / "config" / "workloads.yaml").read_text())
    load_images_of(code, COMMIT)
    with release("flts-e2e", folder, values(SMALL, workloads) | {"images": {"tag": COMMIT}}) as made:
        made.chart = chart
        made.install()

        def upgrade() -> None:
            made.chart = CHART
            made.upgrade(images={"tag": ""})

        def images() -> set[str]:
            return {str(container(pod)["image"]) for pod in made.pods()}

        yield Installation(HelmPipeline(made), upgrade, partial(made.rollback, 1), images)
