from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flts.errors import RejectedError, SeriesTooShortError
from flts.forecasting.recipe import RecipeSpec, fit_recipe, transform
from flts.forecasting.splits import as_train, rows_needed, tails
from flts.forecasting.windows import TrainingWindows, training_windows
from tests.made_series import make_series


def test_the_tails_of_the_real_data_set_are_as_counted_by_hand() -> None:
    shared = tails(15_927, stop_tail=0.1, calibration_tail=0.1)

    assert (shared.fit_stop, shared.stop_stop, shared.n_rows) == (12_741, 14_334, 15_927)
    assert shared.calibration_rows == 1_593


def test_tails_that_leave_nothing_are_refused() -> None:
    with pytest.raises(RejectedError, match="STOP_TAIL"):
        tails(100, stop_tail=0.5, calibration_tail=0.5)


def test_the_rows_needed_by_the_defaults_are_as_counted_by_hand() -> None:
    # One window needs 10 + 1 = 11 rows to fit on. The two tails are 20 % of 14 rows, rounded up to 3: 2 rows calibrate
    # the intervals and 1 stops the training.
    needed = rows_needed(input_seq_len=10, output_seq_len=1, warmup_rows=0, stop_tail=0.1, calibration_tail=0.1)

    assert needed == 14
    assert needed + 6 == rows_needed(
        input_seq_len=10, output_seq_len=1, warmup_rows=6, stop_tail=0.1, calibration_tail=0.1
    )


@given(
    input_seq_len=st.integers(1, 30),
    output_seq_len=st.integers(1, 8),
    stop_tail=st.floats(0.02, 0.45),
    calibration_tail=st.floats(0.02, 0.45),
    more=st.integers(0, 60),
)
def test_with_the_rows_needed_or_any_more_each_part_has_a_window(
    input_seq_len: int, output_seq_len: int, stop_tail: float, calibration_tail: float, more: int
) -> None:
    needed = rows_needed(
        input_seq_len=input_seq_len,
        output_seq_len=output_seq_len,
        warmup_rows=0,
        stop_tail=stop_tail,
        calibration_tail=calibration_tail,
    )

    shared = tails(needed + more, stop_tail=stop_tail, calibration_tail=calibration_tail)

    assert shared.fit_stop >= input_seq_len + output_seq_len
    assert shared.stop_stop - shared.fit_stop >= output_seq_len
    assert shared.calibration_rows >= output_seq_len


def test_one_row_fewer_than_needed_has_no_windows_and_the_refusal_says_so() -> None:
    spec = RecipeSpec(lags_enable=True, lags_n=2, lags_step=3)
    series = make_series(
        rows_needed(input_seq_len=10, output_seq_len=2, warmup_rows=6, stop_tail=0.1, calibration_tail=0.1)
    )

    def windows(rows: int) -> TrainingWindows:
        recipe = fit_recipe(as_train(series.rows(0, rows)), spec)
        features = transform(recipe, series.rows(0, rows))
        shared = tails(len(features), stop_tail=0.1, calibration_tail=0.1)
        return training_windows(features, recipe, shared, input_seq_len=10, output_seq_len=2)

    enough = windows(len(series))
    assert min(len(enough.fit), len(enough.stop), len(enough.calibrate)) >= 1
    with pytest.raises(SeriesTooShortError, match="both need one"):
        windows(20)
