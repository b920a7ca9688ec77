from __future__ import annotations

from eval_container.domain.waiting import (
    Patience,
    awaited_types,
    early_types,
    early_types_are_final,
    given_up,
    missing_types,
    why_missing,
)

PATIENCE = Patience(silence_seconds=300, max_seconds=7200)
STARTED = 1_000_000.0


def test_missing_is_what_was_expected_and_has_no_final_event() -> None:
    assert missing_types(("GRU", "LSTM", "PROPHET"), {"LSTM"}) == ("GRU", "PROPHET")


def test_a_type_is_not_awaited_after_its_trainer_announced_a_later_one() -> None:
    expected = ("GRU", "LINEAR")

    assert awaited_types(expected, {"LSTM"}) == expected
    assert awaited_types(expected, {"PERSISTENCE"}) == ("GRU",)
    assert awaited_types(expected, {"GRU", "LINEAR"}) == ()
    assert missing_types(expected, {"PERSISTENCE"}) == expected


def test_early_are_the_expected_types_of_the_baselines_trainer_and_what_it_made() -> None:
    expected = ("GRU", "LINEAR", "PROPHET")

    assert early_types(expected) == ("LINEAR",)
    assert early_types(("GRU",)) == ()
    assert early_types_are_final(expected, {"LINEAR", "PERSISTENCE"}, ())
    assert early_types_are_final(("GRU",), {"PERSISTENCE"}, ())
    assert not early_types_are_final(expected, {"LINEAR", "MEAN", "GRU"}, ())
    assert not early_types_are_final(expected, {"PERSISTENCE", "MEAN", "GRU"}, ())
    assert not early_types_are_final(expected, {"LINEAR", "PERSISTENCE"}, ("PERSISTENCE", "MEAN"))


def test_the_reason_names_the_results_that_came_without_it() -> None:
    reason = why_missing("LINEAR", {"GRU", "RIDGE", "MEAN"}, now=STARTED + 1, started=STARTED, patience=PATIENCE)

    assert reason.code == "not_trained"
    assert reason.message == "the trainer of LINEAR sent RIDGE, MEAN without it: is its release older?"


def test_a_type_that_never_showed_is_given_up_after_the_silence() -> None:
    assert not given_up(["GRU"], now=STARTED + 299, started=STARTED, last_sign={}, patience=PATIENCE)
    assert given_up(["GRU"], now=STARTED + 300, started=STARTED, last_sign={}, patience=PATIENCE)


def test_a_sign_of_life_of_any_run_prolongs_the_wait() -> None:
    signs = {"GRU": STARTED + 250}

    assert not given_up(["GRU"], now=STARTED + 549, started=STARTED, last_sign=signs, patience=PATIENCE)
    assert given_up(["GRU"], now=STARTED + 550, started=STARTED, last_sign=signs, patience=PATIENCE)


def test_a_sign_from_before_the_run_does_not_shorten_its_wait() -> None:
    signs = {"GRU": STARTED - 10_000}

    assert not given_up(["GRU"], now=STARTED + 299, started=STARTED, last_sign=signs, patience=PATIENCE)


def test_one_that_lives_is_waited_for_though_another_is_silent() -> None:
    signs = {"LSTM": STARTED + 590}

    assert not given_up(["GRU", "LSTM"], now=STARTED + 600, started=STARTED, last_sign=signs, patience=PATIENCE)


def test_nobody_is_waited_for_longer_than_the_most() -> None:
    signs = {"GRU": STARTED + 7199}

    assert given_up(["GRU"], now=STARTED + 7200, started=STARTED, last_sign=signs, patience=PATIENCE)


def test_the_reason_tells_silence_from_length() -> None:
    silent = why_missing("GRU", {"LSTM"}, now=STARTED + 400, started=STARTED, patience=PATIENCE)
    too_long = why_missing("GRU", {"LSTM"}, now=STARTED + 7200, started=STARTED, patience=PATIENCE)

    assert (silent.code, too_long.code) == ("silent", "too_long")
    assert "GRU" in silent.message
