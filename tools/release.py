"""Find the address of an installation of the chart in its cluster. Standard library only."""

from __future__ import annotations

import base64
import json
import subprocess
from typing import Any

SECONDS = 30.0


class ReleaseError(Exception):
    """kubectl gave no usable answer; the message contains the reason."""


class Release:
    """An installation of the chart in a namespace, read with kubectl.

    Parameters
    ----------
    namespace : str
        Namespace of the installation.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def get(self, *what: str) -> dict[str, Any]:
        """Return an object, or a list of them, such as ``get("service", "inference")``.

        Raises
        ------
        ReleaseError
            If there is no such object, no kubectl or no cluster.
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
        """Return the address of a Service on the node's port.

        Raises
        ------
        ReleaseError
            If the Service has no port of the node.
        """
        for port in self.get("service", service)["spec"]["ports"]:
            if port.get("nodePort"):
                return f"http://127.0.0.1:{port['nodePort']}"
        msg = f"the Service {service} in {self._namespace} has no port of the node: values, nodePorts"
        raise ReleaseError(msg)

    def secret(self, name: str) -> str:
        """Return one value of the Secret that the chart created."""
        data = self.get("secret", "flts-secrets")["data"]
        return base64.b64decode(data[name]).decode()
