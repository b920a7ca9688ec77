"""Access rights: the key for writes and downloads."""

from __future__ import annotations

import hashlib
import hmac

from fastapi import Request
from fastapi.security import APIKeyHeader

from flts.errors import FltsError
from gateway_container.context import gateway_of

API_KEY_HEADER = "x-api-key"
api_key_scheme = APIKeyHeader(name=API_KEY_HEADER, auto_error=False, description="The gateway's key (GATEWAY_API_KEY)")


class UnauthorizedError(FltsError):
    """The gateway's API key is missing or wrong. HTTP 401."""

    code = "unauthorized"


def is_valid_key(given: str, valid: tuple[str, ...]) -> bool:
    """Return whether a key is valid, in a time that does not depend on the number of correct characters."""
    digest = hashlib.sha256(given.encode("utf-8", "surrogatepass")).digest()
    matches = [hmac.compare_digest(digest, hashlib.sha256(key.encode()).digest()) for key in valid]
    return any(matches)


def require_key(request: Request) -> None:
    """Refuse a request without a valid key, before its body is read.

    Raises
    ------
    UnauthorizedError
        The message names the header of the key.
    """
    given = request.headers.get(API_KEY_HEADER)
    if given is None:
        msg = f"this needs the gateway's API key in the header {API_KEY_HEADER}"
        raise UnauthorizedError(msg, code="missing_api_key", field=API_KEY_HEADER)
    if not is_valid_key(given, gateway_of(request).settings.api_keys()):
        msg = f"the API key in the header {API_KEY_HEADER} is not valid"
        raise UnauthorizedError(msg, code="wrong_api_key", field=API_KEY_HEADER)
