"""Every error raised on purpose; its class says what the pipeline does next."""

from __future__ import annotations


class FltsError(Exception):
    """Base of all errors raised on purpose.

    Parameters
    ----------
    message : str
        One sentence that says what is wrong and, where it helps, what to do.
    code : str
        A short constant for programs (``too_few_rows``); defaults to the class's own.
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
        """Return the error body that every HTTP answer and record uses."""
        body = {"code": self.code, "message": self.message}
        if self.field is not None:
            body["field"] = self.field
        return {"error": body}


class RetryableError(FltsError):
    """May succeed later: wait ``retry_after_seconds``, keep the offset. HTTP 503."""

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


class BackendAwayError(RetryableError):
    """A store, broker or tracker did not answer in time; never counted as a try."""

    code = "backend_away"


class RejectedError(FltsError):
    """Can never succeed: dead-letter it with its reason, move on. HTTP 422."""

    code = "rejected"


class NotFoundError(RejectedError):
    """What was asked for does not exist. HTTP 404."""

    code = "not_found"


class ObjectNotFoundError(NotFoundError):
    """The store holds no object under this bucket and key."""

    code = "object_not_found"


class HashMismatchError(RejectedError):
    """An object's bytes are not the ones its claim or bundle promised."""

    code = "hash_mismatch"


class PreconditionFailedError(FltsError):
    """A conditional put met another object: somebody else was first."""

    code = "precondition_failed"


class ConflictError(RejectedError):
    """The request's precondition does not hold. HTTP 409."""

    code = "conflict"


class RunDeletedError(RejectedError):
    """The run's identifier was deleted since the run began: nothing more is done for it."""

    code = "run_deleted"


class SeriesTooShortError(RejectedError):
    """Fewer rows than the window, the horizon and the tails need."""

    code = "too_few_rows"
