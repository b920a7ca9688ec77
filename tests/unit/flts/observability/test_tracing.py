from __future__ import annotations

import pytest

from flts.observability.tracing import Trace, current_trace, use_trace

HEADER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_header_is_read_and_written_again() -> None:
    trace = Trace.parse(HEADER.encode())

    assert trace is not None
    assert trace.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert trace.header() == HEADER


def test_the_next_step_keeps_the_trace_and_changes_the_span() -> None:
    trace = Trace.start()

    following = Trace.parse(trace.next().header())

    assert following is not None
    assert following.trace_id == trace.trace_id
    assert following.span_id != trace.span_id


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        HEADER + "-more",
        b"\xff\xfe",
    ],
)
def test_what_the_standard_says_to_ignore_is_ignored(header: str | bytes | None) -> None:
    assert Trace.parse(header) is None


def test_a_later_version_is_read_like_this_one() -> None:
    trace = Trace.parse("01" + HEADER[2:] + "-more")

    assert trace is not None
    assert trace.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_step_is_worked_in_for_as_long_as_it_lasts() -> None:
    trace = Trace.start()

    with use_trace(trace):
        assert current_trace() == trace

    assert current_trace() is None
