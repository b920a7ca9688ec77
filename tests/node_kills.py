"""Kill a container's first process with SIGKILL from its node, as the kernel does when memory runs out.

A process in the container cannot do so: SIGKILL from its own process namespace has no effect on process 1. So on each
node a pod runs that sees the node's processes, in a namespace of its own. The kubelet then starts the container again
in the same pod; ``kubectl delete pod --force`` would send SIGTERM first and replace the pod.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster import Document, Namespace, kubectl, namespace
from tests.eventually import eventually
from tools.images import IMAGES

NAME = "killer"
PRIVILEGED = {"pod-security.kubernetes.io/enforce": "privileged"}
IMAGE = next(image.reference for image in IMAGES if image.name == "gateway")
"""Any image that contains Python."""
CONTAINER_ID = 64
"""Characters of a full id; a shorter id could match a part of another container's id."""
KILL = """
import os, pathlib, signal, sys
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        status, groups = (process / "status").read_text(), (process / "cgroup").read_text()
    except OSError:
        continue
    inside = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1]
    if inside == "1" and sys.argv[1] in groups:
        os.kill(int(process.name), signal.SIGKILL)
        print(process.name)
"""


class Killer:
    """Pods that see the processes of their nodes."""

    def __init__(self, made: Namespace) -> None:
        self._made = made

    def kill(self, pod: Document) -> None:
        """Kill the first process of a pod's only container; the kernel then kills the container's other processes."""
        [status] = pod["status"]["containerStatuses"]
        number = status["containerID"].rpartition("/")[2]
        assert len(number) == CONTAINER_ID, status
        beside = [
            each["metadata"]["name"]
            for each in self._made.get("pods", "--selector", f"app={NAME}")
            if each["spec"]["nodeName"] == pod["spec"]["nodeName"]
        ]
        killed = self._made.kubectl("exec", beside[0], "--", "python", "-c", KILL, number).split()
        assert len(killed) == 1, f"processes of {pod['metadata']['name']} that were killed: {killed}"


@contextmanager
def killer(name: str) -> Iterator[Killer]:
    """Run a killing pod on each node until the end of the block."""
    with namespace(name, PRIVILEGED) as made:
        made.apply(_manifest())
        made.kubectl("rollout", "status", f"daemonset/{NAME}", "--timeout", "120s", timeout=130)
        yield Killer(made)


def _manifest() -> Document:
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": NAME},
        "spec": {
            "selector": {"matchLabels": {"app": NAME}},
            "template": {
                "metadata": {"labels": {"app": NAME}},
                "spec": {
                    "hostPID": True,
                    "automountServiceAccountToken": False,
                    "terminationGracePeriodSeconds": 0,
                    "containers": [
                        {
                            "name": NAME,
                            "image": IMAGE,
                            "command": ["python", "-c", "import signal; signal.pause()"],
                            # CAP_KILL permits kills of other users' processes; root has it in a container by default.
                            "securityContext": {"runAsUser": 0},
                        }
                    ],
                },
            },
        },
    }


def evict(pod: Document) -> None:
    """Evict a pod, as when its node is drained, as soon as its disruption budget permits the eviction."""
    about = {name: pod["metadata"][name] for name in ("name", "namespace")}
    body = json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": about})
    path = "/api/v1/namespaces/{namespace}/pods/{name}/eviction".format(**about)
    eventually(
        lambda: kubectl("create", "--raw", path, "--filename", "-", given=body),
        f"{about['name']} may be evicted",
        timeout=60,
        every=1,
    )
