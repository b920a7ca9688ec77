"""Find the address of an installation of the chart in its cluster. Standard library only."""

from __future__ import annotations

import base64
import json
import subprocess
from typing import Any

SECONDS = 30.0


class ReleaseError(Exception):
    """The cluster does not tell; the message says why."""


class Release:
    """What the chart put into a namespace, as kubectl shows it.

    Parameters
    ----------
    namespace : str
        Where it was installed.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def get(self, *what: str) -> dict[str, Any]:
        """Return an object, or a list of them, such as ``get("service", "inference")``.

        Raises
        ------
        ReleaseError
            If there is none, or no kubectl and no cluster.
        """
        command = ["kubectl", "--namespace", self._namespace, "get", *what, "--output", "json"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            msg = f"kubectl does not answer: {error}"
            raise ReleaseError(msg) from error
        if answer.returncode:
            raise ReleaseError(answer.stderr.strip())
        return dict(json.loads(answer.stdout))

    def url(self, service: str) -> str:
        """Return the address of a Service's port of the node.

        Raises
        ------
        ReleaseError
            If it has none.
        """
        for port in self.get("service", service)["spec"]["ports"]:
            if port.get("nodePort"):
                return f"http://127.0.0.1:{port['nodePort']}"
        msg = f"the Service {service} in {self._namespace} has no port of the node: values, nodePorts"
        raise ReleaseError(msg)

    def secret(self, name: str) -> str:
        """Return one of the secrets that the chart made."""
        data = self.get("secret", "flts-secrets")["data"]
        return base64.b64decode(data[name]).decode()
