"""Write Grafana's dashboards: ``python -m tools.dashboards [--check]``.

A panel is declared as title, queries, unit and description; the rest of its JSON is the same for all panels. Queries
name the job of a gauge that only one service sets, because the other services export it as 0.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flts.trainers import DEPLOYMENTS

FOLDER = Path(__file__).resolve().parent.parent / "deploy" / "grafana" / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
TRAINERS = f'job=~"{"|".join(DEPLOYMENTS)}"'
SERVING = 'job="inference"'
GATEWAY = 'job="fastapi-app"'
MISSING = (
    'abs(max by (group, topic) (flts_pipeline_messages{state="sent"}) - sum by (group, topic) '
    '(max by (group, topic, state) (flts_pipeline_messages{state=~"done|in_flight|dead_letter"})))'
)
RECORDING = f'job=~"{"|".join([*DEPLOYMENTS, "eval"])}"'
GROUPS = 'group!="each-replica"'


@dataclass(frozen=True)
class Panel:
    """One panel; each of its ``queries`` is (expression, legend)."""

    title: str
    text: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    highest: float | None = None
    decimals: int | None = None


@dataclass(frozen=True)
class Dashboard:
    """One dashboard; its uid is the name of its file."""

    uid: str
    title: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]


def stat(title: str, text: str, unit: str, expression: str, legend: str = "", **more: Any) -> Panel:
    """Return a panel of single numbers, one per series."""
    return Panel(title, text, unit, ((expression, legend),), "stat", height=more.pop("height", 5), **more)


def lines(title: str, text: str, unit: str, *queries: tuple[str, str], **more: Any) -> Panel:
    """Return a panel of lines over time."""
    return Panel(title, text, unit, queries, **more)


def quantiles(metric: str, by: str, where: str = "", window: str = "$__rate_interval") -> tuple[tuple[str, str], ...]:
    """Return the queries of a histogram's median, 95th and 99th percentile."""
    labels = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return tuple(
        (f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{where}[{window}])))", f"{legend}{name}")
        for share, name in ((0.5, "median"), (0.95, "p95"), (0.99, "p99"))
    )


def counted(metric: str, by: str, where: str = "", window: str = "$__rate_interval") -> str:
    """Return the query for the increase of a counter within a window."""
    return f"sum by ({by}) (increase({metric}{where}[{window}]))"


def processes(where: str) -> tuple[Panel, ...]:
    """Return the panels about memory, CPU and open files of a dashboard's processes."""
    return (
        lines("Memory", "Resident memory of the service's own process; its child processes come on top.", "bytes",
              (f"process_resident_memory_bytes{{{where}}}", "{{job}} {{instance}}")),
        lines("CPU", "Cores that the service's own process uses.", "none",
              (f"rate(process_cpu_seconds_total{{{where}}}[$__rate_interval])", "{{job}} {{instance}}")),
        lines("Open files", "Files and sockets that the process holds; a rise without an end is a leak.", "short",
              (f"process_open_fds{{{where}}}", "{{job}} {{instance}}")),
    )  # fmt: skip


PIPELINE = Dashboard("flts-pipeline", "FLTS pipeline", (
    ("Services", (
        stat("Replicas that answer", "Replicas whose /metrics answers, by service.", "short",
             'sum by (job) (up{job!="prometheus"})', "{{job}}", width=12),
        stat("Versions", "What runs; more than one version is an update that has not ended.", "short",
             "count by (version, commit) (flts_build_info)", "{{version}} {{commit}}", width=6),
        stat("Backends", "1 while the backend answered each service's last request.", "short",
             "min by (backend) (flts_backend_up)", "{{backend}}", width=6),
    )),
    ("Runs", (
        stat("Uploads", "Data sets that were taken and refused, in the time shown.", "short",
             counted("flts_uploads_total", "outcome", f"{{{GATEWAY}}}", "$__range"), "{{outcome}}", decimals=0),
        stat("Data sets preprocessed", "How preprocessing ended, in the time shown.", "short",
             counted("flts_datasets_preprocessed_total", "outcome", '{job="preprocess"}', "$__range"), "{{outcome}}",
             decimals=0),
        stat("Decisions", "How runs were decided, in the time shown. A run in which no model is better than the best "
             "baseline by more than luck promotes that baseline.", "short",
             counted("flts_promotions_total", "decision", '{job="eval"}', "$__range"), "{{decision}}", decimals=0),
        lines("Time to preprocess", "From claim to stored data set.", "s",
              *quantiles("flts_preprocess_duration_seconds", "", '{job="preprocess"}', "$__range")),
        lines("Time to decide", "To score all candidates of a run over the horizon and decide it.", "s",
              *quantiles("flts_evaluation_duration_seconds", "", '{job="eval"}', "$__range")),
        lines("Work in progress", "Messages being worked on, by service.", "short",
              ("sum by (job) (flts_work_in_progress)", "{{job}}")),
    )),
    ("Gateway", (
        lines("Requests", "Answers of the gateway by status.", "reqps",
              (f"sum by (outcome) (rate(flts_http_requests_total{{{GATEWAY}}}[$__rate_interval]))", "{{outcome}}")),
        lines("Share of errors", "Answers with a status of 500 or more; the alert is at 5 %.", "percentunit",
              ((f'sum(rate(flts_http_requests_total{{{GATEWAY},outcome="5xx"}}[$__rate_interval])) / '
                f"sum(rate(flts_http_requests_total{{{GATEWAY}}}[$__rate_interval]))"), "errors"), highest=1),
        lines("Errors by route", "Which routes answered with a status of 500 or more.", "reqps",
              (f'sum by (route) (rate(flts_http_requests_total{{{GATEWAY},outcome="5xx"}}[$__rate_interval]))',
               "{{route}}")),
    )),
    ("Behind the scenes", (
        lines("Periodic work", "Rounds of outbox, spool, overdue runs, janitor and the like.", "ops",
              ("sum by (job, tick) (rate(flts_ticks_total[$__rate_interval]))", "{{job}} {{tick}}")),
        lines("Periodic work that failed", "Rounds that ended in an error or found a backend away.", "short",
              (counted("flts_ticks_total", "job, tick, outcome", '{outcome!="done"}'), "{{job}} {{tick}} {{outcome}}")),
        stat("Removed by the janitor", "Objects that retention removed, in the time shown.", "short",
             'sum(increase(flts_janitor_removed_total{job="eval"}[$__range]))', "objects", decimals=0, width=4,
             height=8),
        stat("Store conflicts", "Keys that existed with other bytes; what was stored won.", "short",
             "sum(increase(flts_store_conflicts_total[$__range]))", "conflicts", decimals=0, width=4, height=8),
    )),
    ("Processes", processes('job!="prometheus"')),
))  # fmt: skip

TRAINING = Dashboard("flts-training", "FLTS training", (
    ("Trainings", (
        stat("Trainings", "How they ended, in the time shown; `reused` found an earlier bundle.", "short",
             counted("flts_trainings_total", "model_type, outcome", f"{{{TRAINERS}}}", "$__range"),
             "{{model_type}} {{outcome}}", decimals=0, width=12),
        stat("Mean time to train", "One model, from claim to stored bundle, in the time shown.", "s",
             f"sum by (model_type) (increase(flts_training_duration_seconds_sum{{{TRAINERS}}}[$__range])) / "
             f"sum by (model_type) (increase(flts_training_duration_seconds_count{{{TRAINERS}}}[$__range]))",
             "{{model_type}}", width=12),
        lines("Time to train", "One model, from claim to stored bundle.", "s",
              *quantiles("flts_training_duration_seconds", "model_type", f"{{{TRAINERS}}}", "$__range"), width=12),
        lines("Trainings over time", "Ended well or found again.", "short",
              (counted("flts_trainings_total", "model_type, outcome", f'{{{TRAINERS},outcome!="failed"}}'),
               "{{model_type}} {{outcome}}"), width=12),
        stat("Refits", "Promoted models that were fitted again on all rows, in the time shown.", "short",
             counted("flts_refits_total", "model_type, outcome", f"{{{TRAINERS}}}", "$__range"),
             "{{model_type}} {{outcome}}", decimals=0, width=12),
        lines("Time to refit", "One model, from request to stored bundle.", "s",
              *quantiles("flts_refit_duration_seconds", "model_type", f"{{{TRAINERS}}}", "$__range"), width=12),
    )),
    ("Trouble", (
        lines("Failed tries", "Tries that are repeated, and trainings given up.", "short",
              (counted("flts_messages_total", "job", f'{{{TRAINERS},topic="training-data",outcome="retried"}}'),
               "{{job}} retried"),
              (counted("flts_trainings_total", "job", f'{{{TRAINERS},outcome="failed"}}'), "{{job}} given up")),
        lines("Stuck", "Work stopped since it made no progress for TRAIN_STUCK_SECONDS.", "short",
              (counted("flts_training_stuck_total", "job", f"{{{TRAINERS}}}"), "{{job}}")),
        lines("Retries exhausted", "Work given up after FAILURE_MAX_RETRIES tries.", "short",
              (counted("flts_training_retries_exhausted_total", "job", f"{{{TRAINERS}}}"), "{{job}}")),
    )),
    ("Queue", (
        lines("At work", "Trainings going on.", "short",
              (f"sum by (job) (flts_work_in_progress{{{TRAINERS}}})", "{{job}}")),
        lines("Waiting", "Data sets that wait for a trainer, the one at work included.", "short",
              (f'sum by (group) (flts_consumer_lag{{{TRAINERS},topic="training-data"}})', "{{group}}")),
        lines("Data sets worked off", "Messages of training-data by what became of them.", "short",
              (counted("flts_messages_total", "job, outcome", f'{{{TRAINERS},topic="training-data"}}'),
               "{{job}} {{outcome}}")),
    )),
    ("MLflow, which is the record and never the path", (
        lines("Calls", "Calls to MLflow by outcome; `refused` were held back by the breaker.", "ops",
              ("sum by (job, outcome) (rate(flts_mlflow_calls_total[$__rate_interval]))", "{{job}} {{outcome}}")),
        lines("Breaker", "1 while calls are held back after a time-out.", "short",
              (f"max by (job) (flts_mlflow_breaker_open{{{RECORDING}}})", "{{job}}"), highest=1),
        lines("Spool", "Documents that MLflow has not taken yet.", "short",
              (f"max by (job) (flts_spool_documents{{{RECORDING}}})", "{{job}}")),
    )),
    ("Processes", processes(TRAINERS)),
))  # fmt: skip

SERVED = Dashboard("flts-serving", "FLTS serving", (
    ("Forecasts", (
        stat("Forecasts", "Answered requests per second.", "reqps",
             f"sum(rate(flts_predictions_total{{{SERVING}}}[$__rate_interval]))", "forecasts", width=6),
        stat("Share of errors", "Answered 500 or 503; the alert is at 5 %.", "percentunit",
             f'sum(rate(flts_predictions_total{{{SERVING},outcome=~"failed|unavailable"}}[$__rate_interval])) / '
             f"sum(rate(flts_predictions_total{{{SERVING}}}[$__rate_interval]))", "errors", width=6),
        stat("Replicas", "Inference replicas that answer.", "short", f"sum(up{{{SERVING}}})", "replicas", width=6),
        stat("Champions", "Identifiers with a champion, as the replicas know them.", "short",
             f"max(flts_champions{{{SERVING}}})", "champions", width=6),
        lines("Forecasts by outcome", "`rejected` is the caller's mistake, `unavailable` a 503.", "reqps",
              (f"sum by (outcome) (rate(flts_predictions_total{{{SERVING}}}[$__rate_interval]))", "{{outcome}}")),
        lines("Latency", "From request to answer inside the service.", "s",
              *quantiles("flts_predict_latency_seconds", "model_type", f"{{{SERVING}}}")),
        lines("Forecasts by replica", "An even share each is what a balancer should give.", "reqps",
              (f"sum by (instance) (rate(flts_predictions_total{{{SERVING}}}[$__rate_interval]))", "{{instance}}")),
    )),
    ("Champions", (
        lines("Model loads", "Promotions that came into service, and those that could not.", "short",
              (counted("flts_model_load_total", "outcome", f"{{{SERVING}}}"), "{{outcome}}")),
        lines("Age of the oldest champion", "Since its promotion.", "s",
              (f"max by (instance) (flts_champion_age_seconds{{{SERVING}}})", "{{instance}}")),
        lines("Least interval coverage", "Of the served champions on their test rows; 90 % is promised.", "percentunit",
              (f"min(flts_champion_coverage{{{SERVING}}} > 0)", "coverage"), highest=1),
    )),
    ("Forecast log", (
        lines("Waiting", "Entries that wait to be written behind the requests.", "short",
              (f"sum by (instance, queue) (flts_queue_depth{{{SERVING}}})", "{{instance}} {{queue}}")),
        lines("Dropped", "Entries that were dropped; requests are not affected.", "short",
              (counted("flts_forecast_log_dropped_total", "instance", f"{{{SERVING}}}"), "{{instance}}")),
        lines("Batch forecasts", "Rounds of the worker, which forecasts the test rows of decided runs.", "ops",
              ('sum by (tick, outcome) (rate(flts_ticks_total{job="inference-worker"}[$__rate_interval]))',
               "{{tick}} {{outcome}}")),
    )),
    ("Processes", processes('job=~"inference.*"')),
))  # fmt: skip

KAFKA = Dashboard("flts-kafka", "FLTS Kafka", (
    ("Lag", (
        lines("Lag of the groups", "Messages not yet committed, those at work included.", "short",
              (f"sum by (group, topic) (flts_consumer_lag{{{GROUPS}}})", "{{group}} {{topic}}"), width=12),
        lines("Lag of each replica", "Where a replica reads all of a topic for itself.", "short",
              ('max by (job, topic) (flts_consumer_lag{group="each-replica"})', "{{job}} {{topic}}"), width=12),
    )),
    ("Messages", (
        lines("Messages by outcome", "What became of the messages read.", "ops",
              ("sum by (job, outcome) (rate(flts_messages_total[$__rate_interval]))", "{{job}} {{outcome}}")),
        lines("Messages by topic", "Messages worked off.", "ops",
              ('sum by (topic) (rate(flts_messages_total{outcome="done"}[$__rate_interval]))', "{{topic}}")),
        lines("Work in progress", "Messages being worked on.", "short",
              ("sum by (job) (flts_work_in_progress)", "{{job}}")),
    )),
    ("Trouble", (
        stat("Dead letters", "Messages given up, in the time shown.", "short",
             counted("flts_dead_letters_total", "job, topic", "", "$__range"), "{{job}} {{topic}}", decimals=0,
             height=8),
        lines("Retried", "Tries that failed and are repeated.", "short",
              (counted("flts_messages_total", "job, topic", '{outcome="retried"}'), "{{job}} {{topic}}")),
        lines("Skipped, interrupted, dropped", "Replays for another group; work given back at a stop.", "short",
              (counted("flts_messages_total", "job, outcome", '{outcome=~"skipped|interrupted|dropped"}'),
               "{{job}} {{outcome}}")),
    )),
    ("The sum: sent = done + in flight + dead letters, from offsets", (
        lines("Sent and done", "What a topic holds, and what each group has behind it.", "short",
              ('max by (group, topic, state) (flts_pipeline_messages{state=~"sent|done"})',
               "{{group}} {{topic}} {{state}}")),
        lines("In flight and dead", "Waiting or at work; given up and not replayed; removed unread.", "short",
              ('max by (group, topic, state) (flts_pipeline_messages{state=~"in_flight|dead_letter|lost"})',
               "{{group}} {{topic}} {{state}}")),
        lines("Missing from the sum", "Anything but 0 for long is a message that went astray.", "short",
              (MISSING, "{{group}} {{topic}}"), width=4),
        stat("Replayed", "Dead letters sent again, in the time shown.", "short",
             counted("flts_dead_letters_replayed_total", "group", "", "$__range"), "{{group}}", decimals=0, width=4,
             height=8),
    )),
))  # fmt: skip

DASHBOARDS = (PIPELINE, TRAINING, SERVED, KAFKA)


def main() -> int:
    """Write the files; with ``--check`` print the stale ones and return 1 if there are any."""
    wanted = {FOLDER / f"{dashboard.uid}.json": text(dashboard) for dashboard in DASHBOARDS}
    if "--check" in sys.argv[1:]:
        stale = [path for path, wants in wanted.items() if not path.exists() or path.read_text() != wants]
        stale += [path for path in FOLDER.glob("*.json") if path not in wanted]
        for path in stale:
            print(f"deploy/grafana/dashboards/{path.name} is stale: make generate")
        return 1 if stale else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, wants in wanted.items():
        path.write_text(wants)
    return 0


def text(dashboard: Dashboard) -> str:
    """Return the content of a dashboard's file."""
    document = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["flts"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_datasource()]},
        "links": [{"type": "dashboards", "tags": ["flts"], "title": "FLTS", "asDropdown": False, "includeVars": True}],
        "panels": list(_panels(dashboard)),
    }
    return json.dumps(document, indent=2) + "\n"


def _datasource() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {"text": "Prometheus", "value": "prometheus"},
        "refresh": 1,
    }


def _panels(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    number, top = 0, 0
    for title, panels in dashboard.rows:
        number += 1
        place = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        top, left, height = top + 1, 0, 0
        for panel in panels:
            if left + panel.width > WIDTH:
                top, left, height = top + height, 0, 0
            number += 1
            yield _panel(panel, number, {"x": left, "y": top, "w": panel.width, "h": panel.height})
            left, height = left + panel.width, max(height, panel.height)
        top += height


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.highest is not None:
        defaults["max"] = panel.highest
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    if panel.kind == "timeseries":
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never"}
        options: dict[str, Any] = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    else:
        options = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "textMode": "value_and_name",
            "colorMode": "none",
            "graphMode": "none",
        }
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": DATASOURCE,
                "expr": expression,
                "legendFormat": legend,
                "instant": panel.kind == "stat",
                "range": panel.kind != "stat",
            }
            for index, (expression, legend) in enumerate(panel.queries)
        ],
    }


if __name__ == "__main__":
    raise SystemExit(main())
