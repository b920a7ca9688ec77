"""The keys of all objects in all buckets. A `Key` builds, lists and parses the keys of one kind.

Every release reads these keys, so `tests/unit/flts/storage/test_layout.py` contains each key literally. A key begins
with an identifier, or with a folder of FLTS. The name of such a folder begins with an underscore; no identifier does.
"""

from __future__ import annotations

import re
from datetime import date
from functools import cached_property
from typing import NamedTuple

_PATTERNS = {"identifier": "[^_/][^/]*", "part": "train|test", "number": "[0-9]+"}
"""Regular expressions of parts of a key; any other part matches all characters except a slash."""


class Key:
    """The form of a kind of key: ``Key("{identifier}/current.json")("a")`` returns ``a/current.json``."""

    def __init__(self, form: str) -> None:
        self.form = form
        self.parts = tuple(re.findall(r"{(\w+)}", form))

    def __call__(self, *values: str) -> str:
        """Return the key with these parts, given in the order of the form."""
        return self.form.format_map(dict(zip(self.parts, values, strict=True)))

    def prefix(self, *values: str) -> str:
        """Return the prefix of all keys with these first parts; it ends before the first part that is not given."""
        known = dict(zip(self.parts, values, strict=False))
        return self.form.partition(f"{{{self.parts[len(values)]}}}")[0].format_map(known)

    def parse(self, key: str) -> dict[str, str] | None:
        """Return the parts of a key by name, or None if it has another form."""
        match = self._pattern.fullmatch(key)
        return None if match is None else match.groupdict()

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        groups = {part: f"(?P<{part}>{_PATTERNS.get(part, '[^/]+')})" for part in self.parts}
        return re.compile(re.escape(self.form).replace(r"\{", "{").replace(r"\}", "}").format_map(groups))


class RunName(NamedTuple):
    """The identifier and the id of a run."""

    identifier: str
    pipeline_run_id: str


# Keys in every bucket
PROBE = Key("_probe/{name}")
"""Test objects of the check at start."""

# Keys in the bucket raw-data
UPLOAD = Key("{identifier}/{upload_hash}/{part}.csv")
INCOMING = Key("_incoming/{identifier}/{part}.csv")
"""Files sent to ``/upload``; storing a file here starts no run."""

# Keys in the bucket processed-data
TRAIN_ROWS = Key("{identifier}/{config_hash}/processed_data.parquet")
TRAIN_META = Key("{identifier}/{config_hash}/processed_data.meta.json")
TEST_ROWS = Key("{identifier}/{config_hash}/test_processed_data.parquet")
TEST_META = Key("{identifier}/{config_hash}/test_processed_data.meta.json")
RAW_TEST_ROWS = Key("{identifier}/{config_hash}/raw_test_data.parquet")
HISTORY = Key("{identifier}/{config_hash}/history.rows")
"""The last raw test rows, which inference replicas keep; the inference worker writes it."""

# Keys in the bucket model-bundles
MODEL_FILE = "model.onnx"
BUNDLE_FILE = "bundle.json"
MODEL = Key(f"{{identifier}}/{{config_hash}}/{{model_type}}/{{train_hash}}/{MODEL_FILE}")
BUNDLE = Key(f"{{identifier}}/{{config_hash}}/{{model_type}}/{{train_hash}}/{BUNDLE_FILE}")
REFITTED_BUNDLE = Key(f"{{identifier}}/{{config_hash}}/{{model_type}}/{{train_hash}}/refit/{BUNDLE_FILE}")
"""The same model, fitted again on all rows; its ``model.onnx`` is beside it."""

# Keys in the bucket model-promotion
CURRENT = Key("{identifier}/current.json")
CURRENT_OF_CONFIG = Key("{identifier}/{config_hash}/current.json")

# Keys in the bucket inference-logs
FORECASTS = Key("{identifier}/date={day}/{file}")
"""Forecasts that a replica served, or the batch forecast of a run; the day is ``YYYY-MM-DD`` in UTC."""

# Keys in the bucket pipeline-runs: the records of a run
RUN = Key("{identifier}/{pipeline_run_id}/run.json")
ANNOUNCED = Key("{identifier}/{pipeline_run_id}/announced.json")
STAGE = Key("{identifier}/{pipeline_run_id}/stages/{stage}.json")
EXPECTED = Key("{identifier}/{pipeline_run_id}/expected.json")
TRAINED = Key("{identifier}/{pipeline_run_id}/trained/{model_type}.json")
SCOREBOARD = Key("{identifier}/{pipeline_run_id}/scoreboard-{sha256}.json")
PROVISIONAL = Key("{identifier}/{pipeline_run_id}/provisional.json")
DECISION = Key("{identifier}/{pipeline_run_id}/decision.json")
REFIT = Key("{identifier}/{pipeline_run_id}/refit.json")
OUTCOME = Key("{identifier}/{pipeline_run_id}/outcome.json")
INFERENCE = Key("{identifier}/{pipeline_run_id}/inference.json")
FORECAST = Key("{identifier}/{pipeline_run_id}/forecast.json")
ATTEMPT = Key("{identifier}/{pipeline_run_id}/attempts/{group}/{event_id}-{number}.json")
JOB = Key("{identifier}/jobs/{job_hash}.json")

# Keys in the bucket pipeline-runs: marks, which are empty objects; one listing finds all marks of a kind
INDEX_MARK = Key("_index/{pipeline_run_id}/{identifier}")
"""Every run."""
OPEN_MARK = Key("_open/{pipeline_run_id}/{identifier}")
"""Runs that may have no outcome yet."""
FORECAST_MARK = Key("_forecasts/{pipeline_run_id}/{identifier}")
"""Runs whose test rows may wait for their forecast."""

# Keys in the bucket pipeline-runs: objects that belong to no run
LEASE = Key("_leases/{name}.json")
DELETED = Key("_deleted/{identifier}.json")
OPERATION = Key("_operations/{subject}/{operation_id}.json")
"""The subject is an identifier, or ``_all``."""
IDEMPOTENCY = Key("_idempotency/{sha256}.json")
REPLAY = Key("_dead-letters/{group}/replayed/{uid}.json")

# Keys in the bucket pipeline-runs: documents that MLflow has not recorded yet
SPOOLED_RUN = Key("_spool/{run_id}.json")
SPOOLED_ADDITION = Key("_spool/{run_id}-{sha256}.json")
SPOOLED_CHAMPION = Key("_spool/champion-{experiment}.json")
SPOOLED_FORGET = Key("_spool/forget-{experiment}.json")
SPOOLED = Key("_spool/{name}.json")
"""Any document in the spool."""
SPOOL_REJECTED = Key("_spool_rejected/{name}.json")
"""Documents moved from the spool, because MLflow will never accept them."""


def below(*folders: str) -> str:
    """Return the prefix of all objects in a folder, such as those of an identifier or of a run."""
    return "".join(f"{folder}/" for folder in folders)


def folder_of(key: str) -> str:
    """Return the folder of an object, without a slash at the end."""
    return key.rpartition("/")[0]


def beside(key: str, file: str) -> str:
    """Return the key of another object in the same folder."""
    return f"{folder_of(key)}/{file}"


def run_of(key: str) -> str:
    """Return the pipeline_run_id in the key of any record of a run."""
    return key.split("/")[1]


def config_of(key: str) -> str:
    """Return the config_hash in the key of any object in the buckets of data sets and bundles."""
    return key.split("/")[1] if "/" in key else ""


def day_of(key: str) -> date | None:
    """Return the day in the key of a forecast log, or None if the key has no valid day."""
    parts = FORECASTS.parse(key)
    try:
        return None if parts is None else date.fromisoformat(parts["day"])
    except ValueError:
        return None


def bundle_folder_of(key: str) -> str | None:
    """Return the bundle folder that contains an object, or None for an object of a data set."""
    return folder_of(key) if key.count("/") > TRAIN_ROWS.form.count("/") else None
