from __future__ import annotations

import json

import pytest

from flts.errors import BackendAwayError, FltsError, RejectedError, RetryableError, SeriesTooShortError


class OddColumnError(SeriesTooShortError):
    """An error that flts.errors does not define, as a service could define it."""


class NoDiskError(RetryableError):
    """A second error of the same kind."""


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (RejectedError("no"), RejectedError),
        (BackendAwayError("away", retry_after_seconds=30), BackendAwayError),
        (OddColumnError("too short", code="odd", field="rows"), SeriesTooShortError),
        (NoDiskError("full", retry_after_seconds=5), RetryableError),
    ],
)
def test_an_error_keeps_its_contents_and_its_nearest_known_class_in_another_process(
    error: FltsError, becomes: type[FltsError]
) -> None:
    again = FltsError.from_dict(json.loads(json.dumps(error.to_dict())))

    assert type(again) is becomes
    assert str(again) == str(error)
    assert again.as_body() == error.as_body()
    assert getattr(again, "retry_after_seconds", None) == getattr(error, "retry_after_seconds", None)
