"""Put good and hostile champions into a running pipeline's store, as an attacker with write access would."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx

from flts.bundle.format import Bundle
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import ModelSelected
from flts.contracts.ids import derived_event_id, new_pipeline_run_id
from flts.messaging.kafka import Publisher
from flts.settings import KafkaSettings, StoreSettings
from flts.storage.filesystem import FilesystemStore
from flts.storage.run_store import RunStore
from tests.eventually import eventually
from tests.hostile_bundles import honest, plant
from tests.serving import pointer_of
from tests.stack import RunningStack


class Throne:
    """The store and the topics of a running pipeline, as an attacker uses them."""

    def __init__(self, stack: RunningStack) -> None:
        self._stack = stack
        self.store = FilesystemStore(stack.store)
        self.run_store = RunStore(self.store, StoreSettings(store="filesystem", store_path=stack.store))
        self._publisher = Publisher(KafkaSettings(kafka_bootstrap_servers=stack.state["kafka"]), "tests")

    def close(self) -> None:
        self._publisher.close()

    def crown(self, bundle: Bundle, claim: ClaimCheck) -> Mapping[str, Any]:
        """Move the identifier's pointer, and publish the promotion to every replica."""
        pointer = pointer_of(bundle, claim, pipeline_run_id=new_pipeline_run_id())
        assert self.run_store.pointers.move_current(bundle.identifier, pointer) == "moved"
        self.hint(bundle.identifier, str(pointer["pipeline_run_id"]))
        return pointer

    def hint(self, identifier: str, run: str) -> None:
        """Publish to every replica that a pointer moved."""
        told = ModelSelected(
            event_id=derived_event_id(run, "promotion"),
            identifier=identifier,
            pipeline_run_id=run,
            created_at=datetime.now(UTC),
            decision="promoted",
        )
        self._publisher.publish_all([told])

    def enthrone(self, made: tuple[Bundle, bytes]) -> Mapping[str, Any]:
        """Make a good bundle the champion, and wait until it is served."""
        bundle, model = made
        pointer = self.crown(bundle, plant(self.store, bundle, honest(bundle, model)))
        self._stack.wait_served(bundle.identifier, str(pointer["run_id"]), timeout=60)
        return pointer

    def listed(self, identifier: str) -> dict[str, Any]:
        """Return the entry of an identifier in ``GET /models``, {} if there is none."""
        with self._stack.inference as client:
            models = client.get("/models").json()["models"]
        return next((dict(model) for model in models if model["identifier"] == identifier), {})

    def problem(self, identifier: str, *, words: str, more_refusals_than: float = 0) -> str:
        """Return why the latest promotion is not served, once /models shows ``words`` and the refusal is counted.

        Two bundles may be refused for the same reason, so the count distinguishes one refusal from the next.
        """

        def said() -> str:
            found = str(self.listed(identifier).get("problem"))
            assert words in found, found
            assert self.refusals() > more_refusals_than
            return found

        return eventually(said, f"/models says of {identifier}: {words}", timeout=60)

    def refusals(self) -> float:
        """Return how many champions were not loaded, whether the download or the load failed."""
        return self.loads("fetch_failed") + self.loads("failed")

    def loads(self, outcome: str) -> float:
        """Return the server's count of the loads with this outcome."""
        text = httpx.get(f"{self._stack.state['inference_url']}/metrics").text
        wanted = f'flts_model_load_total{{outcome="{outcome}"}} '
        return next((float(line.removeprefix(wanted)) for line in text.splitlines() if line.startswith(wanted)), 0.0)
