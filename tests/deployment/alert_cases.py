"""Series for each alert: the alert is quiet at first, and fires later."""

from __future__ import annotations

from dataclasses import dataclass

from tests.trainers import INSTALLED

ALL_UP = {
    f'up{{job="{job}",instance="{job}"}}': "1x60"
    for job in (*("fastapi-app", "preprocess", *INSTALLED, "eval", "inference", "inference-worker"),)
}


@dataclass(frozen=True)
class Case:
    """Series in promtool's notation, a time at which the alert is quiet, and a time at which it fires."""

    series: dict[str, str]
    quiet: str
    fires: str
    count: int = 1
    """How many instances of the alert fire."""
    interval: str = "1m"


def stalled(job: str, *, ended: str, at_work: str) -> dict[str, str]:
    """Return the series of a group whose consumer lag is above zero from the fifth minute on."""
    return {
        f'flts_consumer_lag{{job="{job}",group="{job}",topic="training-data"}}': "0x5 3x90",
        f'flts_messages_total{{job="{job}",topic="training-data",outcome="done"}}': ended,
        f'flts_work_in_progress{{job="{job}"}}': at_work,
    }


def summed(group: str, **states: str) -> dict[str, str]:
    """Return the message counts of one group and topic that two replicas of the gateway export."""
    return {
        f'flts_pipeline_messages{{instance="{replica}",group="{group}",topic="t",state="{state}"}}': values
        for replica in ("a", "b")
        for state, values in states.items()
    }


CASES = {
    # After minute 10 eval does not answer, and Prometheus no longer discovers the only replica of train-gru. Both fire
    # the alert.
    "FltsServiceDown": Case(
        {**ALL_UP, 'up{job="eval",instance="eval"}': "1x10 0x20", 'up{job="train-gru",instance="train-gru"}': "1x10"},
        quiet="11m",
        fires="19m",
        count=2,
    ),
    "FltsBackendAway": Case(
        {'flts_backend_up{job="inference",instance="a",backend="store"}': "1x10 0x20"}, quiet="12m", fires="14m"
    ),
    "FltsPeriodicWorkFailing": Case(
        {'flts_ticks_total{job="eval",tick="janitor",outcome="error"}': "0x10 1 2 3 4 5 5x20"},
        quiet="10m",
        fires="15m",
    ),
    # A GRU training fails for good and an LSTM attempt is retried. Both fire the alert.
    "FltsTrainingFailures": Case(
        {
            'flts_trainings_total{job="train-gru",model_type="GRU",outcome="failed"}': "0x10 1x40",
            'flts_messages_total{job="train-gru",topic="training-data",outcome="retried"}': "0x60",
            'flts_trainings_total{job="train-lstm",model_type="LSTM",outcome="failed"}': "0x60",
            'flts_messages_total{job="train-lstm",topic="training-data",outcome="retried"}': "0x10 1x40",
            'flts_trainings_total{job="nonml-prophet",model_type="PROPHET",outcome="failed"}': "0x60",
            'flts_messages_total{job="nonml-prophet",topic="training-data",outcome="retried"}': "0x60",
        },
        quiet="10m",
        fires="12m",
        count=2,
    ),
    "FltsTrainingRetriesExhausted": Case(
        {'flts_training_retries_exhausted_total{job="train-gru",instance="a"}': "0x10 1x40"},
        quiet="10m",
        fires="12m",
    ),
    "FltsTrainingStuck": Case(
        {'flts_training_stuck_total{job="train-lstm",instance="a"}': "0x10 1x40"}, quiet="10m", fires="12m"
    ),
    # A new installation gets no alert for a day, because the rule requires that eval was up 24 hours ago.
    "FltsNoPromotion": Case(
        {
            'flts_promotions_total{job="eval",decision="promoted"}': "0x12 1x400",
            'up{job="eval",instance="eval"}': "1x412",
        },
        quiet="20h",
        fires="26h",
        interval="5m",
    ),
    "FltsMlflowAway": Case(
        {
            'flts_mlflow_breaker_open{job="train-gru",instance="a"}': "0x10 1x40",
            'flts_spool_documents{job="train-gru",instance="a"}': "0x60",
            'flts_mlflow_breaker_open{job="eval",instance="b"}': "0x60",
            'flts_spool_documents{job="eval",instance="b"}': "0x10 3x40",
        },
        quiet="20m",
        fires="30m",
        count=2,
    ),
    "FltsModelLoadFailures": Case(
        {
            'flts_model_load_total{job="inference",instance="a",outcome="success"}': "1x50",
            'flts_model_load_total{job="inference",instance="a",outcome="fetch_failed"}': "0x10 1x40",
            'flts_model_load_total{job="inference",instance="b",outcome="failed"}': "0x60",
        },
        quiet="10m",
        fires="12m",
    ),
    # In the first 20 minutes 4 % of the forecasts fail, which is allowed. Then 8 % fail, which fires the alert.
    "FltsForecastErrors": Case(
        {
            'flts_predictions_total{job="inference",outcome="success"}': "0+96x60",
            'flts_predictions_total{job="inference",outcome="rejected"}': "0x60",
            'flts_predictions_total{job="inference",outcome="unavailable"}': "0+4x20 88+8x40",
            'flts_predictions_total{job="inference",outcome="failed"}': "0x60",
        },
        quiet="20m",
        fires="30m",
    ),
    "FltsApiErrors": Case(
        {
            'flts_http_requests_total{job="fastapi-app",route="/datasets",outcome="2xx"}': "0+96x60",
            'flts_http_requests_total{job="fastapi-app",route="/predict",outcome="5xx"}': "0+4x20 88+8x40",
        },
        quiet="20m",
        fires="30m",
    ),
    "FltsForecastsNotLogged": Case(
        {'flts_forecast_log_dropped_total{job="inference",instance="a"}': "0x10 7x40"}, quiet="10m", fires="12m"
    ),
    # Instance b has no champion and exports the coverage 0, which must not fire the alert.
    "FltsIntervalsTooNarrow": Case(
        {
            'flts_champion_coverage{job="inference",instance="a"}': "0x10 0.9x10 0.7x40",
            'flts_champion_coverage{job="eval",instance="b"}': "0x60",
        },
        quiet="20m",
        fires="35m",
    ),
    "FltsConsumerLag": Case(
        {
            'flts_consumer_lag{job="train-gru",instance="a",group="train-gru",topic="training-data"}': "60x50",
            'flts_consumer_lag{job="train-gru",instance="b",group="train-gru",topic="training-data"}': "0x10 60x40",
            'flts_consumer_lag{job="fastapi-app",instance="c",group="each-replica",topic="run-progress"}': "999x50",
        },
        quiet="15m",
        fires="25m",
    ),
    # All three consumers have waiting records. train-lstm commits, nonml-prophet is in a long training, and train-gru
    # does neither, so only train-gru fires the alert.
    "FltsConsumerStalled": Case(
        {
            **stalled("train-gru", ended="7x95", at_work="0x95"),
            **stalled("train-lstm", ended="7+1x95", at_work="0x95"),
            **stalled("nonml-prophet", ended="7x95", at_work="1x95"),
        },
        quiet="20m",
        fires="60m",
    ),
    # After minute 10 two records that were sent to eval are in none of eval's other counts, and preprocess has lost
    # three records: both fire the alert. All records of train-gru are in flight, which is no fault.
    "FltsMessagesAstray": Case(
        {
            **summed("eval", sent="10x60", done="6x10 4x50", in_flight="3x60", dead_letter="1x60", lost="0x60"),
            **summed("preprocess", sent="7x60", done="7x60", in_flight="0x60", dead_letter="0x60", lost="0x10 3x50"),
            **summed("train-gru", sent="10x60", done="0x60", in_flight="10x60", dead_letter="0x60", lost="0x60"),
        },
        quiet="20m",
        fires="30m",
        count=2,
    ),
    "FltsDeadLetters": Case(
        {
            'flts_dead_letters_total{job="preprocess",topic="raw-data"}': "0x10 1x40",
            'flts_dead_letters_total{job="eval",topic="model-training"}': "0x60",
        },
        quiet="10m",
        fires="12m",
    ),
}
