"""Forward /predict and /models to the inference service, so that clients need one address only."""

from __future__ import annotations

import httpx

from flts.errors import FltsError

PASSED_REQUEST_HEADERS = ("content-type", "accept", "traceparent", "x-request-id")
PASSED_ANSWER_HEADERS = ("content-type", "retry-after", "traceparent", "x-request-id")


class InferenceAwayError(FltsError):
    """The inference service did not answer. HTTP 503."""

    code = "inference_away"


class InferenceBrokenError(FltsError):
    """The inference service's answer is incomplete, or not JSON. HTTP 502."""

    code = "inference_broken"


class InferenceProxy:
    """One HTTP client of the inference service, with limits on connections and times.

    Parameters
    ----------
    url : str
        Address of the inference service.
    timeout_seconds : float
        Longest wait for an answer.
    transport : httpx.AsyncBaseTransport, optional
        Replaces the network in tests.
    """

    def __init__(self, url: str, *, timeout_seconds: float, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._url = url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._transport = transport
        self._client: httpx.AsyncClient | None = None

    async def send(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> httpx.Response:
        """Return the inference service's answer, with any status.

        Raises
        ------
        InferenceAwayError
            If the service cannot be reached or does not answer in time.
        InferenceBrokenError
            If its answer is incomplete, or not JSON.
        """
        try:
            answer = await self._connected().request(method, self._url + path, headers=headers, content=body)
        except (httpx.TimeoutException, httpx.ConnectError, httpx.PoolTimeout) as error:
            msg = "the inference service does not answer; try again in a moment"
            raise InferenceAwayError(msg) from error
        except httpx.HTTPError as error:
            msg = "the inference service broke off its answer; try again in a moment"
            raise InferenceBrokenError(msg) from error
        if not answer.headers.get("content-type", "").startswith("application/json"):
            msg = f"the inference service answered {answer.status_code} without JSON"
            raise InferenceBrokenError(msg)
        return answer

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _connected(self) -> httpx.AsyncClient:
        # The client is created at its first use, because it must be created in the event loop that uses it.
        # `trust_env=False` ignores the proxy variables of the environment: no proxy is used inside the deployment.
        if self._client is None:
            self._client = httpx.AsyncClient(
                timeout=httpx.Timeout(self._timeout_seconds, connect=min(2.0, self._timeout_seconds)),
                limits=httpx.Limits(max_connections=200, max_keepalive_connections=50),
                transport=self._transport,
                trust_env=False,
            )
        return self._client
