from __future__ import annotations

import json

import numpy as np
import pytest

from flts.errors import RejectedError
from flts.ingest.layout import lay_out
from flts.ingest.report import ValidationReport, validation_report
from flts.ingest.table import RawTable
from flts.recipe_settings import RecipeSettings
from flts.settings import WindowSettings

STEP = 600


class Both(RecipeSettings, WindowSettings):
    """The settings of recipe and windows together, as preprocess and the gateway have them."""


def make_table(rows: int, *, start: int = 0, columns: tuple[str, ...] = ("a", "b"), step: int = STEP) -> RawTable:
    times = start + step * np.arange(rows)
    values = np.random.default_rng(start).normal(size=(rows, len(columns))).cumsum(axis=0)
    return RawTable(times, columns, values, "time")


def without_rows(table: RawTable, rows: slice) -> RawTable:
    return RawTable(
        np.delete(table.times, rows), table.columns, np.delete(table.values, rows, axis=0), table.time_column
    )


def report_on(train: RawTable, test: RawTable | None = None, **settings: object) -> ValidationReport:
    both = Both(**settings)  # type: ignore[arg-type] - pydantic checks the types
    return validation_report(train, test, both, both)


def refusal_of(train: RawTable, test: RawTable | None = None, **settings: object) -> RejectedError:
    with pytest.raises(RejectedError) as refusal:
        report_on(train, test, **settings)
    return refusal.value


def test_describes_both_parts() -> None:
    report = report_on(make_table(100))

    assert report.step_seconds == STEP
    assert report.columns == ("a", "b")
    assert report.targets == ("a", "b")
    assert (report.train.rows, report.test.rows) == (80, 20)
    assert report.train.start == "1970-01-01T00:00:00Z"
    assert report.test.start == "1970-01-01T13:20:00Z"
    assert (report.test_from, report.test_follows_train) == ("split", True)
    assert report.train.missing_share == {"a": 0.0, "b": 0.0}
    assert report.warnings == []
    assert report.rows_needed == 14
    json.dumps(report.as_dict(), allow_nan=False)


def test_a_short_gap_is_filled_and_reported() -> None:
    report = report_on(without_rows(make_table(200), slice(50, 53)), make_table(30, start=200 * STEP))

    assert report.train.rows == 197
    assert report.train.inserted_rows == 3
    assert report.train.segments == 1
    assert report.train.gaps == [{"after": "1970-01-01T08:10:00Z", "steps": 4, "action": "filled"}]
    assert report.train.missing_share["a"] == 0.015
    assert any("3 missing rows" in warning for warning in report.warnings)


def test_a_long_gap_cuts_the_rows_into_pieces() -> None:
    report = report_on(without_rows(make_table(300), slice(100, 120)), make_table(30, start=300 * STEP))

    assert (report.train.inserted_rows, report.train.segments, report.train.gap_count) == (0, 2, 1)
    assert any("2 pieces" in warning for warning in report.warnings)


def test_only_the_longest_gaps_are_named_and_all_are_counted() -> None:
    table = make_table(400)
    table = without_rows(table, np.arange(10, 310, 10))  # type: ignore[arg-type] - np.delete accepts row numbers too

    report = report_on(table, make_table(30, start=400 * STEP))

    assert report.train.gap_count == 30
    assert len(report.train.gaps) == 20


def test_constant_dropped_and_sparse_columns_are_named() -> None:
    table = make_table(200, columns=("a", "flat", "empty", "holes"))
    table.values[:, 1] = 3.0
    table.values[:, 2] = np.nan
    table.values[::10, 3] = np.nan

    report = report_on(table)

    assert report.constant_columns == {"flat": 3.0}
    assert list(report.dropped_columns) == ["empty"]
    assert report.targets == ("a", "flat", "holes")
    assert any("column empty is dropped" in warning for warning in report.warnings)
    assert any("flat" in warning for warning in report.warnings)
    assert any("column holes: 10.0% of the training cells" in warning for warning in report.warnings)


def test_a_data_set_of_constants_is_accepted() -> None:
    table = make_table(100)
    table.values[:] = 1.0

    assert report_on(table).constant_columns == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize(
    ("lengths", "rows"),
    [
        ({}, (1, 2)),
        ({"INPUT_SEQ_LEN": 10}, (1, 2, 3, 10, 17)),
        ({"OUTPUT_SEQ_LEN": 1}, (3, 10, 17)),
        ({"INPUT_SEQ_LEN": 10, "OUTPUT_SEQ_LEN": 1}, (3, 10, 17)),
    ],
)
def test_too_few_rows_are_refused_naming_the_rows_needed(lengths: dict[str, int], rows: tuple[int, ...]) -> None:
    for count in rows:
        refusal = refusal_of(make_table(count), **lengths)

        assert (refusal.code, refusal.field) == ("too_few_rows", "train")
        if count >= 10:
            assert "at least 14" in refusal.message
            assert "upload at least 18 rows" in refusal.message


@pytest.mark.parametrize("rows", [3, 4, 5, 10, 17])
def test_fewer_rows_are_accepted_with_a_warning_where_the_lengths_are_automatic(rows: int) -> None:
    report = report_on(make_table(rows))

    assert (report.horizon_steps, report.rows_needed) == (1, 14)
    [warning] = [text for text in report.warnings if "a model needs more rows" in text]
    assert "the last value or another baseline is forecast" in warning
    assert warning.endswith("training needs at least 14, so upload at least 18 rows (TRAIN_TEST_SPLIT 0.8)")


def test_the_rows_that_a_refusal_names_suffice() -> None:
    for lengths in ({}, {"INPUT_SEQ_LEN": 10}):
        report = report_on(make_table(18), **lengths)
        assert report.train.rows == 14
        assert not [text for text in report.warnings if "a model needs more rows" in text]


def test_rows_without_a_pair_after_the_warm_up_are_refused() -> None:
    refusal = refusal_of(make_table(17), LAGS_ENABLE=True, LAGS_N=3, LAGS_STEP=4)

    assert (refusal.code, refusal.field) == ("too_few_rows", "train")


def test_longer_windows_lags_and_samples_need_more_rows() -> None:
    table = make_table(60)

    assert "at least 104" in refusal_of(table, INPUT_SEQ_LEN=80, OUTPUT_SEQ_LEN=3).message
    assert "at least 64" in refusal_of(table, LAGS_ENABLE=True, LAGS_N=5, LAGS_STEP=10).message
    refusal = refusal_of(table, SAMPLE_TRAIN_ROWS=12, INPUT_SEQ_LEN=10)
    assert "12 training rows; training needs at least 14" in refusal.message
    assert "upload" not in refusal.message


def test_rows_dropped_for_missing_cells_do_not_count() -> None:
    table = make_table(100)
    table.values[::4, 0] = np.nan

    refusal = refusal_of(table, NANS_DROP_ROWS=True, INPUT_SEQ_LEN=10)

    assert (refusal.code, refusal.field) == ("too_few_rows", "train")
    assert "holds no window" in refusal.message
    assert any("holds no window" in warning for warning in report_on(table, NANS_DROP_ROWS=True).warnings)
    assert report_on(table).train.rows == 80


def test_a_test_that_is_cut_off_needs_a_window_of_its_own() -> None:
    train = make_table(100)

    near = report_on(train, make_table(1, start=100 * STEP))
    far = refusal_of(train, make_table(10, start=200 * STEP), INPUT_SEQ_LEN=10)
    single = refusal_of(train, make_table(1, start=200 * STEP))

    assert near.test_follows_train
    for refusal in (far, single):
        assert (refusal.code, refusal.field) == ("too_few_rows", "test")
        assert "at least 11" in refusal.message
    assert any("at least 11" in text for text in report_on(train, make_table(10, start=200 * STEP)).warnings)


def test_rows_missing_between_train_and_test_join_the_test() -> None:
    layout = lay_out(make_table(100), make_table(20, start=105 * STEP), Both())

    assert layout.joined
    assert len(layout.test) == 25
    assert np.isnan(layout.test.values[:5]).all()
    assert not np.isnan(layout.test.values[5:]).any()


@pytest.mark.parametrize(
    ("test", "code", "field", "words"),
    [
        (make_table(30, start=50 * STEP), "test_overlaps_train", "test", "after the training rows"),
        (make_table(30, start=99 * STEP), "test_overlaps_train", "test", "16:30"),
        (make_table(30, start=100 * STEP, columns=("a", "c")), "missing_column", "b", "no column b"),
        (make_table(30, start=100 * STEP, columns=("a", "b", "c")), "unknown_column", "c", "has not"),
        (make_table(30, start=100 * STEP, step=300), "step_differs", "test", "5 min"),
    ],
)
def test_a_test_file_that_does_not_belong_is_refused(test: RawTable, code: str, field: str, words: str) -> None:
    refusal = refusal_of(make_table(100), test)

    assert (refusal.code, refusal.field) == (code, field)
    assert words in refusal.message


def test_the_test_file_may_have_its_columns_in_another_order() -> None:
    test = make_table(30, start=100 * STEP)
    swapped = RawTable(test.times, ("b", "a"), test.values[:, ::-1], "time")

    assert (lay_out(make_table(100), swapped, Both()).test.values == test.values).all()


@pytest.mark.parametrize(("targets", "code"), [("missing", "unknown_target"), ("a,empty", "target_dropped")])
def test_targets_that_the_data_lack_are_refused(targets: str, code: str) -> None:
    table = make_table(100, columns=("a", "empty"))
    table.values[:, 1] = np.nan

    refusal = refusal_of(table, TARGETS=targets)

    assert (refusal.code, refusal.field) == (code, "TARGETS")


def test_sampling_is_said() -> None:
    report = report_on(make_table(200), SAMPLE_TRAIN_ROWS=50, SAMPLE_TEST_ROWS=30)

    assert "only a sample will be used: 50 of 160 training rows, 30 of 40 test rows" in report.warnings


def test_nothing_of_the_test_moves_the_training_part() -> None:
    table = make_table(100)
    later = RawTable(table.times.copy(), table.columns, table.values.copy(), "time")
    later.values[80:] *= 1000
    later.times[80:] += np.cumsum(np.arange(20) % 5) * STEP  # the test rows also get irregular steps

    before, after = lay_out(table, None, Both()), lay_out(later, None, Both())

    assert (before.train.times == after.train.times).all()
    assert (before.train.values == after.train.values).all()
    assert before.train.grid == after.train.grid
