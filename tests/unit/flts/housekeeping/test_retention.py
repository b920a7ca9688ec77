from __future__ import annotations

from datetime import date

from flts.housekeeping.retention import RunFacts, Selection, select_artefacts, select_logs, select_runs

NOW = 10_000_000.0
OLD = NOW - 90_000


def _run(number: int, *, finished: bool = True, config: str | None = "c", created: float = NOW) -> RunFacts:
    bundles = frozenset({f"s/{config}/GRU/t{number}"}) if config else frozenset()
    return RunFacts(f"{number:04d}", finished=finished, config_hash=config, created=created, bundle_folders=bundles)


def _select(runs: list[RunFacts], *, retain: int = 2, pointed: tuple[str, ...] = ()) -> Selection:
    return select_runs(runs, now=NOW, retain_runs=retain, pointed_runs=pointed, pointed_configs=(), pointed_bundles=())


def test_finished_runs_beyond_the_newest_go() -> None:
    assert set(_select([_run(1), _run(2), _run(3), _run(4)]).runs) == {"0001", "0002"}


def test_an_unfinished_run_stays_however_old() -> None:
    assert _select([_run(1, finished=False), _run(2), _run(3), _run(4)]).runs == ("0002",)


def test_what_a_pointer_or_its_predecessor_names_stays() -> None:
    assert _select([_run(1), _run(2), _run(3), _run(4)], pointed=("0001",)).runs == ("0002",)


def test_bundles_and_data_of_kept_runs_stay_and_others_go() -> None:
    selection = _select([_run(1, config="a"), _run(2, config="b"), _run(3, config="b")])
    objects = {
        "s/a/processed_data.parquet": OLD,
        "s/b/processed_data.parquet": OLD,
        "s/a/GRU/t1/bundle.json": OLD,
        "s/b/GRU/t2/model.onnx": OLD,
        "s/b/GRU/t9/model.onnx": OLD,
    }

    chosen = select_artefacts(objects, selection, now=NOW)

    assert set(chosen) == {"s/a/processed_data.parquet", "s/a/GRU/t1/bundle.json", "s/b/GRU/t9/model.onnx"}


def test_young_objects_stay_since_their_run_may_not_be_listed_yet() -> None:
    selection = _select([_run(1), _run(2)])

    assert select_artefacts({"s/x/processed_data.parquet": NOW - 60}, selection, now=NOW) == ()


def test_all_bundles_of_a_configuration_in_work_stay_since_a_trainer_may_reuse_them() -> None:
    selection = _select([_run(1, config="b", finished=False), _run(2, config="c")])

    assert select_artefacts({"s/b/GRU/t9/model.onnx": OLD}, selection, now=NOW, unfinished_configs=["b"]) == ()


def test_no_artefact_goes_while_a_runs_configuration_is_unknown() -> None:
    selection = _select([_run(1, config=None, finished=False), _run(2)])

    assert select_artefacts({"s/x/GRU/t/model.onnx": OLD}, selection, now=NOW) == ()


def test_a_run_given_up_before_its_configuration_was_known_switches_nothing_off_for_ever() -> None:
    objects = {"s/x/GRU/t/model.onnx": OLD, "s/c/processed_data.parquet": OLD}

    selection = _select([_run(1, config=None, finished=False, created=OLD), _run(2)])

    assert selection.runs == ()
    assert select_artefacts(objects, selection, now=NOW) == ("s/x/GRU/t/model.onnx",)


def test_logs_older_than_the_days_kept_go_and_odd_keys_stay() -> None:
    keys = ["s/date=2026-01-01/a", "s/date=2026-01-02/b", "s/date=broken/c", "s/other/d"]

    assert select_logs(keys, today=date(2026, 2, 1), retain_days=30) == ("s/date=2026-01-01/a",)
