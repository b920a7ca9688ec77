from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flts.errors import RejectedError
from inference_container.domain.times import VECTOR_ROWS, TimeStyle, read_epoch, read_iso

SECONDS = st.integers(min_value=-62_135_596_800, max_value=253_402_300_799)


def texts_of(seconds: list[int], *, separator: str = "T", suffix: str = "") -> list[str]:
    start = datetime(1970, 1, 1)  # noqa: DTZ001 - naive: `suffix` adds the offset
    return [(start + timedelta(seconds=second)).isoformat(sep=separator) + suffix for second in seconds]


@pytest.mark.parametrize("suffix", ["", "Z", "+00:00", ".000Z"])
@pytest.mark.parametrize("separator", ["T", " "])
@settings(max_examples=25)
@given(seconds=st.lists(SECONDS, min_size=1, max_size=3 * VECTOR_ROWS))
def test_iso_times_are_read_exactly_however_many_there_are(seconds: list[int], separator: str, suffix: str) -> None:
    times, _ = read_iso(texts_of(seconds, separator=separator, suffix=suffix), field="time")

    assert times.tolist() == seconds


@given(seconds=st.lists(SECONDS, min_size=1, max_size=2 * VECTOR_ROWS), separator=st.sampled_from("T "))
def test_an_answer_writes_times_as_the_request_did(seconds: list[int], separator: str) -> None:
    for suffix in ("", "Z", "+00:00"):
        texts = texts_of(seconds, separator=separator, suffix=suffix)

        times, style = read_iso(texts, field="time")

        assert style.write(times) == texts


def test_offsets_become_utc() -> None:
    berlin = datetime(2024, 7, 1, 12, 30, tzinfo=timezone(timedelta(hours=2)))

    times, style = read_iso([berlin.isoformat()], field="time")

    assert times.tolist() == [int(berlin.timestamp())]
    assert style.write(times) == ["2024-07-01T10:30:00+00:00"]


def test_offsets_may_change_from_row_to_row() -> None:
    texts = ["2024-10-27T02:00:00+02:00", "2024-10-27T02:00:00+01:00"] * VECTOR_ROWS

    times, _ = read_iso(texts, field="time")

    assert np.diff(times[:2]).tolist() == [3600]


@pytest.mark.parametrize("text", ["2024-01-31", "2024-01-31 00:00", "2024-01-31T00:00Z", "2024-01-31T00:00:00"])
def test_short_forms_are_kept(text: str) -> None:
    times, style = read_iso([text], field="time")

    assert times.tolist() == [int(datetime(2024, 1, 31, tzinfo=UTC).timestamp())]
    assert style.write(times) == [text]


def test_a_date_style_shows_the_clock_where_it_must() -> None:
    _, style = read_iso(["2024-01-31"], field="time")

    assert style.write(np.array([1_706_662_800])) == ["2024-01-31T01:00:00"]


@pytest.mark.parametrize("rows", [1, VECTOR_ROWS + 5])
@pytest.mark.parametrize(
    "wrong",
    ["", "now", "today", "NaT", "yesterday", "2024-02-30T00:00:00", "2024-01-01T24:00:00", "1700000000",
     "2024-01-01T00:00:00.5", "+024-01-01T00:00:00", "0000-01-01T00:00:00", "2024-01-01T00:00:6\u0660",
     "0001-01-01T00:00:00+10:00"],
)  # fmt: skip
def test_what_is_no_time_is_refused_naming_column_and_row(wrong: str, rows: int) -> None:
    texts = ["2024-01-01T00:00:00"] * rows
    texts[-1] = wrong

    with pytest.raises(RejectedError, match=f"when: row {rows} ") as caught:
        read_iso(texts, field="when")

    assert (caught.value.code, caught.value.field) == ("bad_time", "when")


def test_epoch_seconds_are_answered_as_numbers() -> None:
    times, style = read_epoch([1_700_000_000, 1_700_000_060], field="ts", integers=True)
    assert style.write(times) == [1_700_000_000, 1_700_000_060]

    times, style = read_epoch([1_700_000_000.0], field="ts", integers=False)
    assert style == TimeStyle("float")
    assert isinstance(style.write(times)[0], float)


@pytest.mark.parametrize("wrong", [1_700_000_000.5, 1_700_000_000_000, 1e300])
def test_milliseconds_and_fractions_are_refused(wrong: float) -> None:
    with pytest.raises(RejectedError, match="not milliseconds") as caught:
        read_epoch([1_700_000_000, wrong], field="ts", integers=False)

    assert caught.value.code == "bad_time"
