"""Start MLflow's server on Postgres and S3 after both answer, and create its bucket if it is missing.

MLflow itself takes two minutes to report that its database is unavailable, and never reports that its store is. The
password is passed in the environment, because every process of the machine can read command lines.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from types import FrameType
from urllib.parse import quote

import boto3
import psycopg2
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

STOP_SECONDS = 20
RETRY_SECONDS = 0.5
NOT_FOUND = 404
REQUIRED = ("POSTGRES_PASSWORD", "MLFLOW_S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
SECRETS = ("POSTGRES_PASSWORD", "AWS_SECRET_ACCESS_KEY")
DEFAULT_CREDENTIALS = frozenset(
    {"minioadmin", "minio", "minio123", "password", "changeme", "admin", "mlflow", "postgres", "secret"}
)
REFUSAL = "password authentication failed"
# Postgres takes its password once, when its volume is made: a second clone's .env does not fit the first one's volume.
REMEDY = (
    "; the database keeps the password that it was made with: put that one into .env as POSTGRES_PASSWORD, or remove "
    "the volume postgres-data and MLflow's records with it"
)
# A query that waits for ever would keep a worker for ever.
DATABASE_OPTIONS = "-c statement_timeout=30000 -c lock_timeout=15000"


def main() -> int:
    """Check the settings and both backends, then serve until asked to stop."""
    environment = os.environ  # noqa: TID251 - a program of its own: it has no settings class
    if problems := wrong_settings(environment):
        sys.stderr.write("\n".join(problems) + "\n")
        return 2
    checks = {"postgres": lambda: check_database(environment), "store": lambda: check_bucket(environment)}
    if problem := wait_for(checks, seconds=float(environment.get("MLFLOW_CHECK_SECONDS") or 30)):
        sys.stderr.write(problem + "\n")
        return 1
    return serve(environment)


def wrong_settings(environment: Mapping[str, str]) -> list[str]:
    """Return one line for each setting that is missing or a well-known default password."""
    problems = [f"{name}: is required" for name in REQUIRED if not environment.get(name)]
    if environment.get("ALLOW_DEFAULT_CREDENTIALS", "").lower() not in {"1", "true"}:
        problems += [
            f"{name}: is a well-known default password; choose another"
            for name in SECRETS
            if environment.get(name, "").lower() in DEFAULT_CREDENTIALS
        ]
    return problems


def wait_for(checks: Mapping[str, Callable[[], None]], *, seconds: float) -> str | None:
    """Make each check until it succeeds; return what failed if that takes longer than ``seconds`` in all."""
    deadline = time.monotonic() + seconds
    for name, check in checks.items():
        while True:
            try:
                check()
                break
            except (psycopg2.Error, BotoCoreError, ClientError) as error:
                if time.monotonic() + RETRY_SECONDS >= deadline:
                    said = " ".join(str(error).split())
                    hint = REMEDY if REFUSAL in said else ""
                    return f"mlflow: {name} did not answer within {seconds:g} s: {said}{hint}"
                time.sleep(RETRY_SECONDS)
        sys.stdout.write(f"mlflow: {name} answers\n")
    return None


def check_database(environment: Mapping[str, str]) -> None:
    """Ask the database for something."""
    connection = psycopg2.connect(**database(environment), connect_timeout=5, options="-c statement_timeout=5000")
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        connection.close()


def check_bucket(environment: Mapping[str, str]) -> None:
    """Make the bucket of artefacts unless it is there."""
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=environment["MLFLOW_S3_ENDPOINT_URL"],
        region_name=environment.get("AWS_DEFAULT_REGION") or "us-east-1",
        config=Config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 1}),
    )
    name = bucket(environment)
    try:
        client.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != NOT_FOUND:
            raise
        client.create_bucket(Bucket=name)


def database(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the parts of the database's address."""
    return {
        "host": environment.get("POSTGRES_HOST") or "postgres",
        "port": environment.get("POSTGRES_PORT") or "5432",
        "dbname": environment.get("POSTGRES_DB") or "mlflow",
        "user": environment.get("POSTGRES_USER") or "mlflow",
        "password": environment["POSTGRES_PASSWORD"],
    }


def database_uri(environment: Mapping[str, str]) -> str:
    """Return the address as SQLAlchemy wants it; `postgresql://` alone would mean another driver."""
    parts = {name: quote(value, safe="") for name, value in database(environment).items()}
    return (
        f"postgresql+psycopg2://{parts['user']}:{parts['password']}@{parts['host']}:{parts['port']}/{parts['dbname']}"
        f"?connect_timeout=5&options={quote(DATABASE_OPTIONS, safe='')}"
    )


def bucket(environment: Mapping[str, str]) -> str:
    """Return the bucket of artefacts, named like the services' own buckets."""
    return (environment.get("NAMESPACE_PREFIX", "") + (environment.get("MLFLOW_BUCKET") or "mlflow")).lower()


def serve(environment: Mapping[str, str]) -> int:
    """Run the server and its worker in a process group of their own, and end them all when asked to."""
    port = environment.get("SERVICE_PORT") or "5000"
    # One worker: the default of four takes four times the memory for a record that nobody waits for.
    command = [sys.executable, "-m", "mlflow", "server", "--host", "0.0.0.0", "--port", port, "--workers", "1"]  # noqa: S104 - published by its owner
    server = subprocess.Popen(  # noqa: S603 - our own command
        command,
        env={
            **environment,
            "MLFLOW_BACKEND_STORE_URI": database_uri(environment),
            "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{bucket(environment)}",
        },
        start_new_session=True,
    )
    asked = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        os.killpg(server.pid, signal.SIGTERM)
        signal.alarm(STOP_SECONDS)

    def kill(_number: int, _frame: FrameType | None) -> None:
        os.killpg(server.pid, signal.SIGKILL)

    # Process 1 of a container gets no signal that it does not handle.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGALRM, kill)
    code = server.wait()
    return 0 if asked else code or 1


if __name__ == "__main__":
    raise SystemExit(main())
