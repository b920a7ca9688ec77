"""The addresses under load: options of Locust's command line, each with a variable for containers."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from locust.env import Environment
from thresholds import Limits


def add_options(parser: Any) -> None:
    """Declare FLTS's options of the load test."""
    parser.add_argument(
        "--gateway", env_var="GATEWAY_URL", default="http://127.0.0.1:8000", help="the gateway's address"
    )
    parser.add_argument(
        "--inference", env_var="INFERENCE_URL", default="http://127.0.0.1:30080", help="the inference service's address"
    )
    parser.add_argument("--api-key", env_var="GATEWAY_API_KEY", default="", is_secret=True, help="the gateway's key")
    parser.add_argument(
        "--identifier",
        env_var="LOAD_IDENTIFIER",
        default="",
        help="forecast this data set; else the first that is served",
    )
    parser.add_argument("--report", env_var="LOAD_REPORT", default="", help="folder for summary.json")
    parser.add_argument("--upload-seconds", type=float, default=20.0, help="time between two uploads")
    parser.add_argument("--max-failures", type=int, default=Limits.max_failures, help="requests that may fail")
    parser.add_argument("--max-median-ms", type=float, default=Limits.max_median_ms, help="highest median of /predict")
    parser.add_argument(
        "--max-p95-ms", type=float, default=Limits.max_p95_ms, help="highest 95th percentile of /predict"
    )


def options_of(environment: Environment) -> Namespace:
    """Return the options of a run."""
    options = environment.parsed_options
    assert options is not None
    return options


def gateway_url(environment: Environment, path: str) -> str:
    """Return the address of a path of the gateway."""
    return f"{options_of(environment).gateway.rstrip('/')}{path}"
