"""The writer of forecast logs when the disk is full."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from flts.contracts.ids import new_pipeline_run_id
from flts.observability.metrics import Metrics
from inference_container.domain.promotion import Promotion
from inference_container.forecast_log import ForecastLog
from tests.serving import champion_of, small_series, window_bundle


def test_lines_that_a_full_disk_refuses_are_counted_and_the_others_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promotion = champion_of(window_bundle(small_series())).promotion
    metrics = Metrics(CollectorRegistry())
    log = ForecastLog(tmp_path, metrics, queue_bytes=10_000, spool_bytes=10_000, period_seconds=60)
    for identifier in ("full", "full", "fits"):
        log.add(_named(promotion, identifier), b'{"a":1}')
    write = Path.write_bytes

    def write_where_there_is_room(path: Path, data: bytes) -> int:
        if "full" in path.parts:
            write(path, data[:5])
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", write_where_there_is_room)

    assert log.flush()

    assert metrics.registry.get_sample_value("flts_forecast_log_dropped_total") == 2
    [written] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written.relative_to(tmp_path).parts[0] == "fits"


def _named(promotion: Promotion, identifier: str) -> Promotion:
    return Promotion(
        identifier=identifier,
        run_id=promotion.run_id,
        model_type=promotion.model_type,
        config_hash=promotion.config_hash,
        pipeline_run_id=new_pipeline_run_id(),
        bundle=promotion.bundle,
        document=promotion.document,
    )
