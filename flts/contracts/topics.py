"""The topics: their names and the events that may be published to each."""

from __future__ import annotations

from dataclasses import dataclass

from flts.contracts import events as facts
from flts.trainers import trained_by


@dataclass(frozen=True, slots=True)
class Topic:
    """A Kafka topic and its events. The key of every Kafka record is the identifier."""

    name: str
    events: tuple[type[facts.Event], ...]
    retention_seconds: int = 7 * 24 * 3600

    def event_class(self, header: str) -> type[facts.Event] | None:
        """Return the event class that the header ``event`` names, or None."""
        for event in self.events:
            if header == event.HEADER_EVENT or header.startswith(f"{event.HEADER_EVENT}-"):
                return event
        return None


RAW_DATA = Topic("raw-data", (facts.RawData,))
TRAINING_DATA = Topic("training-data", (facts.TrainingData,))
INFERENCE_DATA = Topic("inference-data", (facts.InferenceData,))
MODEL_TRAINING = Topic("model-training", (facts.ModelTraining, facts.EvaluateRequest, facts.RollbackRequest))
MODEL_REFIT = Topic("model-refit", (facts.RefitRequest, facts.ModelRefit))
"""A topic of its own, because a trainer or an eval of an earlier release refuses an unknown event of its topics."""
MODEL_SELECTED = Topic("model-selected", (facts.ModelSelected, facts.DatasetDeleted))
RUN_PROGRESS = Topic("run-progress", (facts.RunProgress,), retention_seconds=3600)
PERFORMANCE_EVAL = Topic("performance-eval", (facts.PerformanceEval,))

ALL = (
    RAW_DATA,
    TRAINING_DATA,
    INFERENCE_DATA,
    MODEL_TRAINING,
    MODEL_REFIT,
    MODEL_SELECTED,
    RUN_PROGRESS,
    PERFORMANCE_EVAL,
)


def topic_of(event: facts.Event) -> Topic:
    """Return the topic to which an event is published."""
    for topic in ALL:
        if type(event) in topic.events:
            return topic
    msg = f"no topic carries {type(event).__name__}"
    raise LookupError(msg)


DEAD_LETTER_ENDING = ".dead-letter"
_CONSUMED = {
    "preprocess": (RAW_DATA,),
    "eval": (TRAINING_DATA, MODEL_TRAINING, MODEL_REFIT),
    "inference-worker": (INFERENCE_DATA,),
}


def dead_letter_topic(group: str) -> str:
    """Return the name of the dead-letter topic of a consumer group."""
    return f"{group}{DEAD_LETTER_ENDING}"


def group_of_dead_letters(topic: str) -> str | None:
    """Return the consumer group of a dead-letter topic, or None for any other topic."""
    group = topic.removesuffix(DEAD_LETTER_ENDING)
    return group if group and group != topic else None


def consumed_by(group: str) -> tuple[Topic, ...]:
    """Return the topics that a consumer group of the pipeline consumes; an empty tuple for an unknown group."""
    return (TRAINING_DATA, MODEL_REFIT) if trained_by(group) else _CONSUMED.get(group, ())
