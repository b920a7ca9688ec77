from __future__ import annotations

import pickle
import re

from prometheus_client import CollectorRegistry

from flts.observability import metrics as module
from flts.observability.metrics import (
    Metrics,
    Observation,
    begin_at_zero,
    default_metrics,
    repeat,
    send_metrics_to,
)


def test_names_keep_the_vocabulary_prefix_base_units_and_no_ids() -> None:
    metrics = Metrics(CollectorRegistry())
    for family in metrics.registry.collect():
        assert family.name.startswith("flts_")
        assert not re.search(r"_(ms|minutes|mb)$", family.name)
    labels = [name for metric in vars(metrics).values() for name in getattr(metric, "_labelnames", ())]
    assert "topic" in labels
    assert not {"identifier", "run_id", "pipeline_run_id"} & set(labels)


def test_the_metrics_of_the_design_are_there() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.training_duration.labels(model_type="GRU").observe(21)
    metrics.model_load.labels(outcome="success").inc()
    metrics.predict_latency.labels(model_type="GRU").observe(0.003)
    metrics.messages.labels(topic="training-data", outcome="done").inc()

    text = metrics.text().decode()

    assert 'flts_training_duration_seconds_bucket{le="30.0",model_type="GRU"} 1.0' in text
    assert "flts_training_stuck_total 0.0" in text
    assert 'flts_model_load_total{outcome="success"} 1.0' in text
    assert 'flts_predict_latency_seconds_count{model_type="GRU"} 1.0' in text
    assert 'flts_messages_total{outcome="done",topic="training-data"} 1.0' in text


def test_what_a_child_counts_is_found_on_its_parents_page() -> None:
    sent: list[Observation] = []
    before = module._default
    try:
        child = send_metrics_to(lambda observation: sent.append(pickle.loads(pickle.dumps(observation))))
        assert default_metrics() is child
        child.training_duration.labels("GRU").observe(1.5)
        child.predictions.labels(outcome="ok").inc(3)
        child.spool_documents.set(4)
        with child.evaluation_duration.time():
            pass
    finally:
        module._default = before
    parent = Metrics(CollectorRegistry())
    parent.predictions.labels(outcome="ok").inc()

    for observation in sent:
        repeat(parent, observation)

    read = parent.registry.get_sample_value
    assert read("flts_training_duration_seconds_sum", {"model_type": "GRU"}) == 1.5
    assert read("flts_predictions_total", {"outcome": "ok"}) == 4
    assert read("flts_spool_documents") == 4
    assert read("flts_evaluation_duration_seconds_count") == 1


def test_series_begin_at_zero_so_that_the_first_event_is_a_difference() -> None:
    metrics = Metrics(CollectorRegistry())

    begin_at_zero(metrics.trainings, ["GRU", "LSTM"], module.TRAINING_OUTCOMES)
    begin_at_zero(metrics.training_duration, ["GRU"])

    text = metrics.text().decode()
    assert text.count("\nflts_trainings_total{") == 6
    assert 'flts_trainings_total{model_type="LSTM",outcome="failed"} 0.0' in text
    assert 'flts_training_duration_seconds_count{model_type="GRU"} 0.0' in text
