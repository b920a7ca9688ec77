from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flts.contracts.events import RawData
from flts.contracts.ids import derived_event_id
from flts.contracts.lifecycle import RunState
from flts.errors import BackendAwayError, HashMismatchError, ObjectNotFoundError, RejectedError
from flts.forecasting.grid import FixedGrid
from flts.forecasting.recipe import RecipeSpec, fit_recipe
from flts.forecasting.series import Series
from flts.forecasting.splits import as_train
from flts.forecasting.time_features import TIME_FEATURES
from flts.runtime.adapters import Adapters
from flts.storage.filesystem import FilesystemStore
from preprocess_container.handler import PreprocessUpload
from tests.preprocessing import START, STEP, Preprocessing, make_csv, make_values

ROWS = 100


@pytest.fixture
def pre(tmp_path: Path) -> Preprocessing:
    return Preprocessing.start(tmp_path)


def logged(capture: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    return [record.flts_fields for record in capture.records if record.getMessage() == event]  # type: ignore[attr-defined]


# The results of a run


def test_one_file_is_split_in_time_and_scaled_by_its_training_part(pre: Preprocessing) -> None:
    values = make_values(ROWS)

    made = pre.prepare(make_csv(values))

    assert made.train.values.shape == (80, 2 + len(TIME_FEATURES))
    assert made.test.values.shape == (20, 8)
    low, high = values[:80].min(axis=0), values[:80].max(axis=0)
    np.testing.assert_allclose(made.train.values[:, :2], (values[:80] - low) / (high - low))
    np.testing.assert_allclose(made.test.values[:, :2], (values[80:] - low) / (high - low))
    assert made.context_rows == 80
    np.testing.assert_array_equal(made.raw_test.values, values)
    assert made.training.step_seconds == STEP
    assert made.training.horizon_steps == 10  # the default of this step is longer than a tenth of the rows


def test_eleven_columns_give_seventeen(pre: Preprocessing) -> None:
    made = pre.prepare(make_csv(make_values(ROWS, 11)))

    assert made.train.values.shape == (80, 17)
    assert made.train.names[11:] == TIME_FEATURES


def test_a_test_file_is_the_test(pre: Preprocessing) -> None:
    values = make_values(ROWS + 30)

    made = pre.prepare(make_csv(values[:ROWS]), make_csv(values[ROWS:], first_row=ROWS))

    assert (len(made.train), len(made.test), made.context_rows) == (100, 30, 100)
    np.testing.assert_array_equal(made.raw_test.values, values)


def test_events_claim_what_lies_in_the_store(pre: Preprocessing) -> None:
    event = pre.upload(make_csv(make_values(ROWS)), EPOCHS=3)

    made = pre.run(event)

    training, inference = made.training, made.inference
    folder = f"series/{training.config_hash}"
    assert training.object_key == f"{folder}/processed_data.parquet"
    assert training.test.object_key == f"{folder}/test_processed_data.parquet"
    assert training.raw_test.object_key == f"{folder}/raw_test_data.parquet"
    assert training.meta.object_key == f"{folder}/processed_data.meta.json"
    assert inference.claim() == training.test
    assert inference.meta.object_key == f"{folder}/test_processed_data.meta.json"
    assert (training.rows, training.columns) == (80, 8)
    assert (training.raw_test.rows, training.raw_test.columns) == (100, 2)
    assert training.event_id == derived_event_id(event.event_id, "training-data")
    assert inference.event_id == derived_event_id(event.event_id, "inference-data")
    assert training.settings == {"EPOCHS": 3}
    assert len(training.model_dump_json()) < 4096


def test_the_description_says_how_the_data_set_was_made(pre: Preprocessing) -> None:
    values = make_values(ROWS, 3)
    values[:, 1] = 7.0
    values[5, 2] = np.nan
    event = pre.upload(make_csv(values))

    made = pre.run(event)

    meta, test_meta = made.meta(), made.test_meta()
    assert meta["config_hash"] == made.training.config_hash
    assert meta["raw"] == {"train": event.train.sha256, "test": None}
    assert meta["settings"]["SCALER"] == "MinMaxScaler"
    assert meta["recipe"] == test_meta["recipe"]
    assert meta["recipe"]["constants"] == {"b": 7.0}
    assert meta["feature_names"] == list(made.train.names)
    assert meta["segments"] == [[0, 80]]
    assert meta["imputed_cells"] == 1
    assert meta["report"]["constant_columns"] == {"b": 7.0}
    assert test_meta["context_rows"] == made.context_rows
    assert made.train.imputed[5].tolist() == [False, False, True]


def test_stage_and_log_tell_what_happened(pre: Preprocessing, caplog: pytest.LogCaptureFixture) -> None:
    values = make_values(ROWS)
    values[:, 1] = 7.0
    event = pre.upload(make_csv(values))

    with caplog.at_level("INFO"):
        made = pre.run(event)

    stage = pre.run_store.stages.of("series", event.pipeline_run_id)["preprocess"]
    assert stage["status"] == "done"
    assert stage["start"] <= stage["end"]
    assert stage["train"]["sha256"] == made.training.sha256
    assert stage["reused"] is False
    assert [fields["file"] for fields in logged(caplog, "download_start")] == ["train"]
    (downloaded,) = logged(caplog, "download_done")
    assert (downloaded["rows"], downloaded["columns"]) == (ROWS, 2)
    assert downloaded["rss_bytes"] > 10 * 2**20
    assert [fields["columns"] for fields in logged(caplog, "constant_columns")] == [{"b": 7.0}]
    (done,) = logged(caplog, "pipeline_done")
    assert (done["train_shape"], done["test_shape"]) == ([80, 8], [20, 8])
    assert {fields["reason"] for fields in logged(caplog, "sampling_skipped")} == {"off"}
    assert pre.told.states[0] == "preprocess started"
    assert pre.told.states[-1] == "preprocess done"
    assert pre.metrics.registry.get_sample_value("flts_datasets_preprocessed_total", {"outcome": "done"}) == 1


# The effects of settings


def test_handle_nans_fills_with_the_last_value_and_false_keeps_complete_rows(pre: Preprocessing) -> None:
    values = make_values(ROWS)
    values[50, 0] = np.nan

    filled = pre.prepare(make_csv(values))
    complete = pre.prepare(make_csv(values), HANDLE_NANS=False)

    assert filled.column("a")[50] == filled.column("a")[49]
    assert len(complete.train) == 79
    assert len(complete.train.segments()) == 2


def test_nans_drop_rows_cuts_the_series(pre: Preprocessing) -> None:
    values = make_values(ROWS)
    values[40, 1] = np.nan

    made = pre.prepare(make_csv(values), NANS_DROP_ROWS=True)

    assert [piece.stop - piece.start for piece in made.train.segments()] == [40, 39]


@pytest.mark.parametrize(("threshold", "kept"), [(0.2, ["a"]), (0.3, ["a", "b"])])
def test_nans_threshold_drops_and_names_a_column(pre: Preprocessing, threshold: float, kept: list[str]) -> None:
    values = make_values(ROWS)
    values[::4, 1] = np.nan

    made = pre.prepare(make_csv(values), NANS_THRESHOLD=threshold, TIME_FEATURES_ENABLE=False)

    assert list(made.train.names) == kept
    assert list(made.meta()["report"]["dropped_columns"]) == [name for name in ("a", "b") if name not in kept]


@pytest.mark.parametrize(("method", "factor"), [("iqr", 1.5), ("percentile", 5.0), ("sigma", 1.0)])
def test_clipping_bounds_inputs_and_leaves_raw_test_rows_alone(pre: Preprocessing, method: str, factor: float) -> None:
    values = make_values(ROWS)
    values[10, 0] = values[95, 0] = 500.0

    plain = pre.prepare(make_csv(values), SCALER="none")
    clipped = pre.prepare(make_csv(values), SCALER="none", CLIP_ENABLE=True, CLIP_METHOD=method, CLIP_FACTOR=factor)

    seen = values[:80, 0]
    upper = {
        "iqr": np.percentile(seen, 75) + 1.5 * np.subtract(*np.percentile(seen, [75, 25])),
        "percentile": np.percentile(seen, 95),
        "sigma": seen.mean() + seen.std(),
    }[method]
    assert plain.column("a").max() == 500.0
    assert clipped.column("a").max() == pytest.approx(upper)
    assert clipped.test.values[:, 0].max() == pytest.approx(upper)
    assert clipped.raw_test.values[95, 0] == 500.0


def test_time_features_can_be_switched_off(pre: Preprocessing) -> None:
    made = pre.prepare(make_csv(make_values(ROWS)), TIME_FEATURES_ENABLE=False)

    assert made.train.names == ("a", "b")


def test_lags_are_earlier_rows_and_the_test_takes_them_from_the_training_part(pre: Preprocessing) -> None:
    values = make_values(ROWS)

    made = pre.prepare(
        make_csv(values),
        LAGS_ENABLE=True,
        LAGS_N=2,
        LAGS_STEP=5,
        SCALER="none",
        TARGETS="b",
        TIME_FEATURES_ENABLE=False,
    )

    assert made.train.names == ("a", "b", "b_lag_5", "b_lag_10")
    assert (len(made.train), len(made.test)) == (70, 20)
    np.testing.assert_array_equal(made.column("b_lag_10"), values[:70, 1])
    np.testing.assert_array_equal(made.test.values[:, 2], values[75:95, 1])


@pytest.mark.parametrize(
    ("scaler", "offset", "scale"),
    [
        ("MinMaxScaler", np.min, np.ptp),
        ("StandardScaler", np.mean, np.std),
        ("RobustScaler", np.median, lambda x: np.subtract(*np.percentile(x, [75, 25]))),
        ("MaxAbsScaler", lambda _: 0.0, lambda x: np.abs(x).max()),
        ("none", lambda _: 0.0, lambda _: 1.0),
    ],
)
def test_scalers_and_add_val_do_what_their_names_say(pre: Preprocessing, scaler: str, offset: Any, scale: Any) -> None:
    values = make_values(ROWS)

    made = pre.prepare(make_csv(values), SCALER=scaler, ADD_VAL=2)

    seen = values[:80, 0]
    np.testing.assert_allclose(made.column("a"), (seen - offset(seen)) / scale(seen) + 2)
    assert np.abs(made.train.values[:, 2:]).max() <= 1  # time features are not scaled and stay within -1 and 1


def test_targets_train_test_split_salt_and_ignored_columns(pre: Preprocessing) -> None:
    values = make_values(ROWS)
    text = make_csv(values).replace(b"time,a,b\n", b"time,note,b\n")

    made = pre.prepare(text, IGNORE_COLUMNS="note", TARGETS="b", TRAIN_TEST_SPLIT=0.6)
    salted = pre.prepare(text, IGNORE_COLUMNS="note", TARGETS="b", TRAIN_TEST_SPLIT=0.6, EXTRA_HASH_SALT="x")

    assert made.meta()["recipe"]["targets"] == ["b"]
    assert made.train.names[0] == "b"
    assert (len(made.train), len(made.test)) == (60, 40)
    assert salted.training.config_hash != made.training.config_hash
    np.testing.assert_array_equal(salted.train.values, made.train.values)


def test_max_gap_steps_decides_whether_a_gap_is_filled_or_cuts(pre: Preprocessing) -> None:
    lines = make_csv(make_values(ROWS)).splitlines(keepends=True)
    text = b"".join([*lines[:41], *lines[44:]])

    filled = pre.prepare(text)
    cut = pre.prepare(text, MAX_GAP_STEPS=2)

    assert (len(filled.train), len(filled.train.segments())) == (80, 1)  # 77 of the 97 rows and the 3 filled rows
    assert (len(cut.train), len(cut.train.segments())) == (77, 2)
    assert filled.train.imputed[40:43].all()


def test_head_sampling_stands_in_log_claim_and_description(
    pre: Preprocessing, caplog: pytest.LogCaptureFixture
) -> None:
    values = make_values(300)

    with caplog.at_level("INFO"):
        made = pre.prepare(make_csv(values), SAMPLE_TRAIN_ROWS=50, SAMPLE_TEST_ROWS=30, SAMPLE_SEED=45)

    expected = {"strategy": "head", "original_rows": 240, "sampled_rows": 50, "seed": 45}
    assert (len(made.train), len(made.test)) == (50, 30)
    assert made.training.sampling is not None
    assert made.training.sampling.model_dump() == expected
    assert made.training.test_sampling is not None
    assert made.training.test_sampling.sampled_rows == 30
    assert made.meta()["sampling"] == expected
    assert [fields["part"] for fields in logged(caplog, "sampling_applied")] == ["train", "test"]
    assert logged(caplog, "sampling_applied")[0]["original_rows"] == 240
    assert made.context_rows == 0  # no context, because the sample lacks the rows just before the test rows
    np.testing.assert_allclose(made.raw_test.values, values[240:270])


def test_random_sampling_keeps_a_block_that_the_seed_chose(pre: Preprocessing) -> None:
    text = make_csv(make_values(400))
    sample: dict[str, Any] = {"SAMPLE_TRAIN_ROWS": 50, "SAMPLE_TEST_ROWS": 30, "SAMPLE_STRATEGY": "random"}

    one, other = (pre.prepare(text, SAMPLE_SEED=seed, **sample) for seed in (1, 2))

    for made in (one, other):
        assert (np.diff(made.train.times) == STEP).all()
        assert (len(made.train), len(made.test)) == (50, 30)
    assert one.train.times[0] != other.train.times[0]


def test_a_sample_no_smaller_than_the_rows_is_skipped(pre: Preprocessing, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        made = pre.prepare(make_csv(make_values(ROWS)), SAMPLE_TRAIN_ROWS=80)

    assert made.training.sampling is None
    assert "SAMPLE_TRAIN_ROWS=80" in logged(caplog, "sampling_skipped")[0]["reason"]
    assert made.context_rows == 80


def test_context_is_a_week_or_what_the_longest_horizon_needs(pre: Preprocessing) -> None:
    values = make_values(2_600, 1)

    made = pre.prepare(make_csv(values))

    # 2,016 rows are the longest horizon, which is more than a week: 1,008 rows of ten minutes.
    assert made.context_rows == 2_016
    np.testing.assert_array_equal(made.raw_test.values, values[2_080 - 2_016 :])


def test_a_test_after_a_long_gap_has_no_context(pre: Preprocessing) -> None:
    values = make_values(ROWS + 30)

    made = pre.prepare(make_csv(values[:ROWS]), make_csv(values[ROWS:], first_row=ROWS + 20))

    assert made.context_rows == 0
    assert len(made.raw_test) == len(made.test) == 30


def test_missing_cells_stay_missing_in_the_raw_test_rows(pre: Preprocessing) -> None:
    values = make_values(ROWS)
    values[90, 1] = np.nan

    made = pre.prepare(make_csv(values))

    assert np.isnan(made.raw_test.values[90, 1])
    assert made.test.imputed[10].tolist() == [False, True]
    assert made.test.values[10, 1] == made.test.values[9, 1]


# No leakage: test rows must not influence the training rows


def test_other_test_rows_change_nothing_of_the_training_rows(pre: Preprocessing) -> None:
    values = make_values(ROWS)
    later = values.copy()
    later[80:] = later[80:] * 1000 + 5
    later[85, 0] = np.nan

    one, other = pre.prepare(make_csv(values)), pre.prepare(make_csv(later))

    assert one.training.config_hash != other.training.config_hash  # the uploaded files differ
    assert one.training.sha256 == other.training.sha256  # the processed rows are the same bytes
    assert one.meta()["recipe"] == other.meta()["recipe"]


def test_another_test_file_changes_nothing_of_the_training_rows(pre: Preprocessing) -> None:
    values = make_values(ROWS)
    tests = [make_csv(make_values(30, seed=seed) * seed, first_row=ROWS) for seed in (1, 50)]

    one, other = (pre.prepare(make_csv(values), test, CLIP_ENABLE=True, LAGS_ENABLE=True) for test in tests)

    assert one.training.sha256 == other.training.sha256
    assert one.meta()["recipe"] == other.meta()["recipe"]
    assert one.training.test.sha256 != other.training.test.sha256


def test_later_test_rows_change_no_earlier_feature(pre: Preprocessing) -> None:
    values = make_values(ROWS)
    later = values.copy()
    later[90:-1] = np.nan

    one, other = (pre.prepare(make_csv(rows), LAGS_ENABLE=True) for rows in (values, later))

    np.testing.assert_array_equal(one.test.values[:10], other.test.values[:10])


def test_the_recipe_is_fitted_on_the_sample_alone(pre: Preprocessing) -> None:
    values = make_values(300)

    made = pre.prepare(make_csv(values), SAMPLE_TRAIN_ROWS=50)

    times = made.train.times
    expected = fit_recipe(as_train(Series(times, ("a", "b"), values[:50], FixedGrid(STEP))), RecipeSpec())
    assert made.meta()["recipe"] == json.loads(json.dumps(expected.to_dict()))


# Uploads that are refused


def refusal_of(pre: Preprocessing, event: RawData) -> RejectedError:
    with pytest.raises(RejectedError) as refusal:
        pre.run(event)
    return refusal.value


@pytest.mark.parametrize(
    ("text", "settings", "code", "field", "words"),
    [
        (make_csv(make_values(10)), {"INPUT_SEQ_LEN": 10}, "too_few_rows", "train", "at least 14"),
        (b"", {}, "empty_file", "train", "empty"),
        (b"x,a\n1,2\n", {}, "no_time_column", "train", "time"),
        (make_csv(make_values(ROWS)) + b"2030-01-01,x,1\n", {}, "not_a_number", "a", "row 101"),
        (make_csv(make_values(ROWS)), {"TARGETS": "c"}, "unknown_target", "TARGETS", "a, b"),
        (make_csv(make_values(ROWS)), {"SCALER": "Best"}, "bad_setting", "SCALER", "SCALER"),
        (make_csv(make_values(ROWS)), {"INPUT_SEQ_LEN": 100}, "too_few_rows", "train", "at least"),
    ],
)
def test_a_rejected_upload_ends_its_run_with_the_reason(
    pre: Preprocessing, text: bytes, *, settings: dict[str, Any], code: str, field: str, words: str
) -> None:
    event = pre.upload(text, **settings)

    refusal = refusal_of(pre, event)

    assert (refusal.code, refusal.field) == (code, field)
    assert words in refusal.message
    stage = pre.run_store.stages.of("series", event.pipeline_run_id)["preprocess"]
    assert (stage["status"], stage["code"], stage["field"]) == ("failed", code, field)
    outcome = pre.run_store.runs.outcome("series", event.pipeline_run_id)
    assert outcome is not None
    assert (outcome["outcome"], outcome["code"], outcome["message"]) == ("rejected", code, refusal.message)
    assert list(pre.store.list("processed-data")) == []
    assert pre.metrics.registry.get_sample_value("flts_datasets_preprocessed_total", {"outcome": "rejected"}) == 1


def test_a_missing_or_changed_raw_file_leaves_the_run_open(pre: Preprocessing) -> None:
    missing, changed = (pre.upload(make_csv(make_values(ROWS))) for _ in range(2))
    data, _ = pre.store.get("raw-data", missing.train.object_key)
    pre.store.delete("raw-data", missing.train.object_key)
    pre.store.put("raw-data", changed.train.object_key, b"not even a CSV")

    assert isinstance(refusal_of(pre, missing), ObjectNotFoundError)
    assert isinstance(refusal_of(pre, changed), HashMismatchError)
    for event in (missing, changed):
        assert pre.run_store.runs.outcome("series", event.pipeline_run_id) is None
        assert pre.run_store.stages.of("series", event.pipeline_run_id)["preprocess"]["status"] == "failed"

    pre.store.put("raw-data", missing.train.object_key, data)
    pre.run(missing)
    assert pre.run_store.stages.of("series", missing.pipeline_run_id)["preprocess"]["status"] == "done"


def test_a_run_that_has_ended_is_neither_made_nor_rejected_again(pre: Preprocessing) -> None:
    rejected, decided = pre.upload(b"x,a\n1,2\n"), pre.upload(make_csv(make_values(ROWS)))
    refusal_of(pre, rejected)
    pre.run(decided)
    pre.run_store.runs.put_outcome("series", decided.pipeline_run_id, RunState.PROMOTED)
    before = {info.key: info.etag for info in pre.store.list("pipeline-runs")}

    assert list(pre.handler(rejected, pre.told)) == []
    assert list(pre.handler(decided, pre.told)) == []

    assert {info.key: info.etag for info in pre.store.list("pipeline-runs")} == before
    assert pre.metrics.registry.get_sample_value("flts_datasets_preprocessed_total", {"outcome": "rejected"}) == 1


def test_a_cancelled_run_is_not_begun(pre: Preprocessing) -> None:
    event = pre.upload(make_csv(make_values(ROWS)))
    pre.run_store.runs.put_outcome("series", event.pipeline_run_id, RunState.CANCELLED)

    assert list(pre.handler(event, pre.told)) == []
    assert list(pre.store.list("processed-data")) == []


def test_a_crash_after_the_last_try_is_recorded_and_leaves_the_run_open(pre: Preprocessing) -> None:
    event = pre.upload(make_csv(make_values(ROWS)))

    produced = pre.handler.give_up(event, None, "the child was killed: out of memory")

    assert list(produced) == []
    stage = pre.run_store.stages.of("series", event.pipeline_run_id)["preprocess"]
    assert (stage["status"], stage["message"]) == ("failed", "the child was killed: out of memory")
    assert pre.run_store.runs.outcome("series", event.pipeline_run_id) is None


# The same data or the same message again


def objects(pre: Preprocessing) -> dict[str, str]:
    return {info.key: info.etag for info in pre.store.list("processed-data")}


def test_a_repeat_announces_the_same_and_changes_nothing(pre: Preprocessing) -> None:
    event = pre.upload(make_csv(make_values(ROWS)))

    first = pre.run(event)
    before = objects(pre)
    second = pre.run(event)

    ignored = {"created_at"}
    assert first.training.model_dump(exclude=ignored) == second.training.model_dump(exclude=ignored)
    assert first.inference.model_dump(exclude=ignored) == second.inference.model_dump(exclude=ignored)
    assert objects(pre) == before


def test_a_finished_data_set_is_announced_without_being_computed(
    pre: Preprocessing, caplog: pytest.LogCaptureFixture
) -> None:
    text = make_csv(make_values(ROWS))
    first = pre.prepare(text)

    event = pre.upload(text)
    with caplog.at_level("INFO"):
        second = pre.run(event)

    assert second.training.claim() == first.training.claim()
    assert second.training.event_id != first.training.event_id
    assert len(logged(caplog, "preprocess_skip_duplicate")) == 1
    assert logged(caplog, "download_start") == []
    assert pre.run_store.stages.of("series", event.pipeline_run_id)["preprocess"]["reused"] is True


def test_test_rows_wait_in_the_store_for_their_forecast_whatever_becomes_of_the_message(pre: Preprocessing) -> None:
    text = make_csv(make_values(ROWS))
    made, reused = pre.upload(text), pre.upload(text)

    for event in (made, reused):
        first = pre.run(event)
        pre.run(event)  # the second call simulates a redelivery of the same message

        assert pre.run_store.forecasts.inference("series", event.pipeline_run_id) == first.inference

    waiting = {name.pipeline_run_id for name in pre.run_store.forecasts.waiting()}
    assert waiting == {made.pipeline_run_id, reused.pipeline_run_id}


def test_a_rejected_upload_waits_for_no_forecast(pre: Preprocessing) -> None:
    refusal_of(pre, pre.upload(make_csv(make_values(2))))

    assert pre.run_store.forecasts.waiting() == []


@pytest.mark.parametrize("by_setting", [True, False])
def test_force_computes_again(tmp_path: Path, caplog: pytest.LogCaptureFixture, *, by_setting: bool) -> None:
    pre = Preprocessing.start(tmp_path, force_reprocess=by_setting)
    text = make_csv(make_values(ROWS))
    first = pre.prepare(text)
    before = objects(pre)

    with caplog.at_level("INFO"):
        second = pre.run(pre.upload(text, force=not by_setting))

    assert len(logged(caplog, "pipeline_done")) == 1
    assert second.training.claim() == first.training.claim()
    assert objects(pre) == before


def test_a_finished_data_set_is_refused_to_a_run_with_longer_windows(pre: Preprocessing) -> None:
    text = make_csv(make_values(ROWS))
    pre.prepare(text)

    event = pre.upload(text, INPUT_SEQ_LEN=70)
    refusal = refusal_of(pre, event)

    assert (refusal.code, refusal.field) == ("too_few_rows", "train")
    assert "upload at least" in refusal.message


@pytest.mark.parametrize("name", ["processed_data.parquet", "raw_test_data.parquet", "test_processed_data.meta.json"])
def test_a_data_set_that_lost_an_object_is_completed(pre: Preprocessing, name: str) -> None:
    text = make_csv(make_values(ROWS))
    first = pre.prepare(text)
    before = objects(pre)
    pre.store.delete("processed-data", f"series/{first.training.config_hash}/{name}")

    second = pre.prepare(text)

    assert objects(pre).keys() == before.keys()
    assert second.training.claim() == first.training.claim()


@pytest.mark.parametrize("name", ["raw_test_data.parquet", "processed_data.meta.json", "test_processed_data.meta.json"])
def test_a_damaged_object_is_never_announced(pre: Preprocessing, name: str) -> None:
    text = make_csv(make_values(ROWS))
    first = pre.prepare(text)
    pre.store.put("processed-data", f"series/{first.training.config_hash}/{name}", b"damaged")

    event = pre.upload(text)
    refusal = refusal_of(pre, event)

    assert refusal.code == "stored_dataset_broken"
    assert f"processed-data/series/{first.training.config_hash}/" in refusal.message
    # The run has not ended: it can continue after a repair of the store.
    assert pre.run_store.runs.outcome("series", event.pipeline_run_id) is None


class KilledStore(FilesystemStore):
    """A store whose process is killed before its n-th put of a data set."""

    left = 10**9

    def put(self, bucket: str, key: str, data: bytes, **conditions: Any) -> Any:
        if bucket == "processed-data":
            if self.left == 0:
                raise SystemExit(137)
            self.left -= 1
        return super().put(bucket, key, data, **conditions)


@pytest.mark.parametrize("written", range(5))
def test_killed_between_any_two_writes_a_repeat_yields_the_same(tmp_path: Path, written: int) -> None:
    text = make_csv(make_values(ROWS))
    whole = Preprocessing.start(tmp_path / "whole")
    expected = whole.prepare(text)
    store = KilledStore(tmp_path / "killed")
    pre = Preprocessing.start(tmp_path / "killed", store)
    event = pre.upload(text)
    store.left = written
    with pytest.raises(SystemExit):
        pre.run(event)
    assert len(objects(pre)) == written

    store.left = 10**9
    made = pre.run(event)

    assert made.training.claim() == expected.training.claim()
    assert made.training.meta == expected.training.meta
    assert [(info.key, info.size) for info in pre.store.list("processed-data")] == [
        (info.key, info.size) for info in whole.store.list("processed-data")
    ]


class AwayStore(FilesystemStore):
    """A store that does not answer when a data set is read."""

    def get(self, bucket: str, key: str) -> Any:
        if bucket == "processed-data":
            msg = "no answer"
            raise BackendAwayError(msg)
        return super().get(bucket, key)


def test_a_store_that_is_away_is_no_reason_to_compute_or_to_reject(tmp_path: Path) -> None:
    pre = Preprocessing.start(tmp_path, AwayStore(tmp_path))
    event = pre.upload(make_csv(make_values(ROWS)))

    with pytest.raises(BackendAwayError):
        pre.handler(event, pre.told)

    assert pre.run_store.runs.outcome("series", event.pipeline_run_id) is None
    assert list(pre.store.list("processed-data")) == []


def test_times_come_from_the_clock_that_is_passed_in(pre: Preprocessing) -> None:
    event = pre.upload(make_csv(make_values(ROWS)))
    adapters = Adapters(pre.store, pre.run_store, None, pre.metrics, pre.settings)

    training, _ = PreprocessUpload(adapters, pre.settings, now=lambda: START)(event, pre.told)

    assert training.created_at == START
    assert pre.run_store.stages.of("series", event.pipeline_run_id)["preprocess"]["end"] == "2024-01-01T00:00:00.000Z"
