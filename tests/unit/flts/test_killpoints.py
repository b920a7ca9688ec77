"""Kill points do nothing without the setting; with it, one process ends exactly at the point that a test armed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flts import killpoints
from flts.killpoints import reached
from flts.settings import ServiceSettings, StoreSettings
from flts.storage.connect import open_store
from flts.storage.filesystem import FilesystemStore
from flts.storage.mortal import MortalStore

PASS_TWO_POINTS = """
import sys
from pathlib import Path
from flts.killpoints import reached, switch_on
switch_on(Path(sys.argv[1]), "eval")
reached("object-write.before", "pipeline-runs", "a/1/decision.json")
print("first", flush=True)
reached("object-write.before", "pipeline-runs", "b/2/decision.json")
print("second", flush=True)
"""


def arm(folder: Path, service: str, point: str, **order: object) -> Path:
    armed = folder / killpoints.ARMED / f"{service}@{point}@case.json"
    armed.parent.mkdir(parents=True, exist_ok=True)
    armed.write_text(json.dumps(order))
    return armed


def run(folder: Path) -> tuple[int, list[str]]:
    ended = subprocess.run(
        [sys.executable, "-c", PASS_TWO_POINTS, str(folder)], capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout.split()


def passed(folder: Path) -> list[str]:
    journals = (folder / killpoints.PASSED).glob("eval-*.jsonl")
    return [json.loads(line)["detail"] for journal in journals for line in journal.read_text().splitlines()]


def test_a_process_ends_at_the_point_that_a_test_armed_and_its_successor_passes_it(tmp_path: Path) -> None:
    armed = arm(tmp_path, "eval", "object-write.before", detail="pipeline-runs/b/*/decision.json")

    killed = run(tmp_path)
    successor = run(tmp_path)

    assert killed == (-signal.SIGKILL, ["first"])
    assert successor == (0, ["first", "second"])
    assert not armed.exists()
    assert (tmp_path / killpoints.CLAIMED / armed.name).exists()
    assert sorted(passed(tmp_path)) == ["pipeline-runs/a/1/decision.json"] * 2 + ["pipeline-runs/b/2/decision.json"] * 2


def test_a_point_may_be_passed_some_times_before_it_ends_a_process(tmp_path: Path) -> None:
    arm(tmp_path, "eval", "object-write.before", detail="pipeline-runs/*", skip=1)

    assert run(tmp_path) == (-signal.SIGKILL, ["first"])


@pytest.mark.parametrize(
    ("service", "point"), [("eval.child", "object-write.before"), ("eval", "object-write.after"), ("e", "object-write")]
)
def test_points_of_other_services_and_names_end_nobody(tmp_path: Path, service: str, point: str) -> None:
    arm(tmp_path, service, point)

    assert run(tmp_path) == (0, ["first", "second"])


def test_without_the_setting_a_point_does_nothing(tmp_path: Path) -> None:
    arm(tmp_path, "eval", "object-write.before")

    reached("object-write.before", "pipeline-runs", "a")

    assert not (tmp_path / killpoints.PASSED).exists()


def test_only_the_setting_puts_points_around_objects(tmp_path: Path) -> None:
    class Settings(ServiceSettings, StoreSettings):
        """A service with a store."""

    ordinary = open_store(Settings(store="filesystem", store_path=tmp_path))
    mortal = open_store(Settings(store="filesystem", store_path=tmp_path, kill_points=tmp_path / "points"))

    assert isinstance(ordinary, FilesystemStore)
    assert isinstance(mortal, MortalStore)


def test_each_object_is_a_point_before_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Recorder:
        def reached(self, point: str, detail: str) -> None:
            seen.append(f"{point} {detail}")

    monkeypatch.setattr(killpoints, "_points", Recorder())
    store = MortalStore(FilesystemStore(tmp_path))
    store.ensure_bucket("bucket")
    file = tmp_path / "file"
    file.write_bytes(b"file")

    store.put("bucket", "put", b"1")
    store.put_file("bucket", "put_file", file)
    store.put_stream("bucket", "put_stream", [b"2"])
    store.copy("bucket", "put", "copy")
    assert store.get("bucket", "put")[0] == b"1"
    store.get_file("bucket", "put_file", tmp_path / "fetched")
    assert b"".join(store.stream("bucket", "put_stream")) == b"2"
    store.delete("bucket", "put")

    expected = [("object-write", name) for name in ("put", "put_file", "put_stream", "copy")]
    expected += [("object-read", name) for name in ("put", "put_file", "put_stream")]
    expected += [("object-delete", "put")]
    assert seen == [f"{what}.{when} bucket/{key}" for what, key in expected for when in ("before", "after")]
