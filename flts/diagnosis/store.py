"""The steps that diagnose the object store."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

from flts.diagnosis.network import address_of, network_steps
from flts.diagnosis.steps import STEP_SECONDS, WRITE_SECONDS, Backend, Step
from flts.errors import BackendAwayError, FltsError, ObjectNotFoundError
from flts.settings import StoreSettings
from flts.storage.checks import write_steps
from flts.storage.connect import open_store
from flts.storage.ports import ObjectStore

SETTING = "MLFLOW_S3_ENDPOINT_URL"
MAKE_BUCKETS = "start any FLTS service: each creates the buckets that are missing (NAMESPACE_PREFIX must match)"


def object_store(settings: StoreSettings, namespace_prefix: str, *, start: str) -> Backend:
    """Return the store's steps. S3: name, TCP, request; a folder: its existence. Then both: listing, writing, puts."""
    store = open_store(settings, namespace_prefix)
    if settings.store == "filesystem":
        path = settings.store_path or Path()
        folder = Step("folder", lambda: _folder(path), lambda _: f"set STORE_PATH to the store's folder, or {start}")
        return Backend("store", f"file://{path.absolute()}", [folder, *_bucket_steps(store, settings)])
    url = str(settings.mlflow_s3_endpoint_url)
    steps = [
        *network_steps([address_of(url)], setting=SETTING, start=start),
        Step("request", lambda: _any_answer(url), lambda _: f"point {SETTING} at the S3 port, not at its console"),
        *_bucket_steps(store, settings),
    ]
    return Backend("store", url, steps)


def _bucket_steps(store: ObjectStore, settings: StoreSettings) -> list[Step]:
    steps = [Step("host check", lambda: _list(store, settings), _refused)]
    for name, act in write_steps(store, settings).items():

        def answer(act: object = act) -> str:
            assert callable(act)
            act()
            return "done"

        steps.append(Step(name, answer, _not_written, WRITE_SECONDS))
    return steps


def _folder(path: Path) -> str:
    if not path.is_dir():
        msg = f"there is no folder {path.absolute()}"
        raise BackendAwayError(msg)
    return f"{sum(1 for _ in path.iterdir())} entries"


def _any_answer(url: str) -> str:
    request = urllib.request.Request(url, method="GET")  # noqa: S310 - address_of has checked: http or https
    try:
        with urllib.request.urlopen(request, timeout=STEP_SECONDS) as answer:  # noqa: S310 - address_of has checked the URL
            return f"answers {answer.status}"
    except urllib.error.HTTPError as error:  # an S3 server answers an unsigned request with an error
        return f"answers {error.code} to a request without a signature"


def _list(store: ObjectStore, settings: StoreSettings) -> str:
    buckets = (
        settings.bucket_raw_data,
        settings.bucket_processed_data,
        settings.bucket_model_bundles,
        settings.promotion_bucket,
        settings.bucket_pipeline_runs,
        settings.bucket_inference_logs,
    )
    for bucket in buckets:
        try:
            next(iter(store.list_folders(bucket)), None)
        except ObjectNotFoundError as error:
            raise BackendAwayError(error.message, code="bucket_missing") from error
    return f"{len(buckets)} buckets, signature and region accepted" if settings.store == "s3" else "6 buckets"


def _refused(error: Exception) -> str:
    code, text = getattr(error, "code", ""), str(error)
    if code == "bucket_missing":
        return MAKE_BUCKETS
    if "RequestTimeTooSkewed" in text:
        return "set this machine's clock: it differs too much from the server's"
    if "AuthorizationHeaderMalformed" in text or "region" in text.lower():
        return "set AWS_DEFAULT_REGION to the server's region"
    if code == "access_denied":
        return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to a key that may list the buckets"
    return "look into the server's log: it refuses a signed request"


def _not_written(error: Exception) -> str:
    code = error.code if isinstance(error, FltsError) else ""
    if code == "conditional_puts_ignored":
        return "use a server with conditional puts (If-None-Match and If-Match): without them decisions can be undone"
    if code == "access_denied":
        return "give the key the right to write and delete in the bucket of runs"
    if code == "timeout":
        return "look for a proxy or a full disk between here and the store: it stalls on 8 MiB"
    return "look whether the disk is full or read-only, and into the server's log"
