"""The errors that FLTS raises. The class of an error decides what the pipeline does next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class FltsError(Exception):
    """Base of all errors raised on purpose.

    Parameters
    ----------
    message : str
        One sentence that names the problem and, where it helps, the remedy.
    code : str
        A short constant for programs (``too_few_rows``); the default is the class attribute ``code``.
    field : str, optional
        The input (column, setting, parameter) that the message is about.
    """

    code = "error"

    def __init__(self, message: str, *, code: str | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.field = field

    def as_body(self) -> dict[str, dict[str, str]]:
        """Return the JSON body of an HTTP answer that reports this error."""
        body = {"code": self.code, "message": self.message}
        if self.field is not None:
            body["field"] = self.field
        return {"error": body}

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values from which `from_dict` restores the error in another process."""
        return {
            "classes": [kind.__name__ for kind in type(self).__mro__],
            "message": self.message,
            "code": self.code,
            "field": self.field,
        }

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> FltsError:
        """Return the error of `to_dict`; if this module lacks its class, an error of the nearest base class."""
        known = (globals().get(name) for name in values["classes"])
        kind = next(each for each in known if isinstance(each, type) and issubclass(each, FltsError))
        error = kind(values["message"], code=values["code"], field=values["field"])
        if isinstance(error, RetryableError):
            error.retry_after_seconds = values["retry_after_seconds"]
        return error


class RetryableError(FltsError):
    """The work may succeed later: a consumer retries it. HTTP 503; ``Retry-After`` is ``retry_after_seconds``."""

    code = "try_again_later"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        field: str | None = None,
        retry_after_seconds: float = 1.0,
    ) -> None:
        super().__init__(message, code=code, field=field)
        self.retry_after_seconds = retry_after_seconds

    def to_dict(self) -> dict[str, Any]:
        """Return the base class's values and ``retry_after_seconds``."""
        return {**super().to_dict(), "retry_after_seconds": self.retry_after_seconds}


class BackendAwayError(RetryableError):
    """A store, broker or MLflow server did not answer in time. A consumer does not count the attempt."""

    code = "backend_away"


class RejectedError(FltsError):
    """The work can never succeed: a consumer publishes a dead letter with the reason. HTTP 422."""

    code = "rejected"


class NotFoundError(RejectedError):
    """The requested item does not exist. HTTP 404."""

    code = "not_found"


class ObjectNotFoundError(NotFoundError):
    """The store has no object under this bucket and key."""

    code = "object_not_found"


class HashMismatchError(RejectedError):
    """An object's bytes do not have the hash or size that its claim check or bundle states."""

    code = "hash_mismatch"


class PreconditionFailedError(FltsError):
    """A conditional put was refused, because another writer changed the object first."""

    code = "precondition_failed"


class ConflictError(RejectedError):
    """The current state does not permit the request. HTTP 409."""

    code = "conflict"


class RunDeletedError(RejectedError):
    """The run's identifier was deleted after the run began; a service does no more work for the run."""

    code = "run_deleted"


class SeriesTooShortError(RejectedError):
    """The series has fewer rows than the window, the horizon and the tails need."""

    code = "too_few_rows"
