from __future__ import annotations

from flts.tracking.breaker import Breaker


def test_a_failure_opens_it_for_a_while_and_a_success_closes_it() -> None:
    now = 100.0
    breaker = Breaker(30, clock=lambda: now)
    assert not breaker.is_open

    assert breaker.failed()
    assert breaker.is_open
    now += 29.9
    assert breaker.is_open
    now += 0.2
    assert not breaker.is_open

    assert not breaker.failed()
    assert breaker.is_open
    assert breaker.succeeded()
    assert not breaker.is_open
    assert not breaker.succeeded()
