"""Settings of preprocess."""

from __future__ import annotations

from pydantic import Field

from flts.recipe_settings import RecipeSettings
from flts.settings import KafkaSettings, ServiceSettings, StoreSettings, UploadLimits, WindowSettings


class PreprocessSettings(ServiceSettings, KafkaSettings, StoreSettings, RecipeSettings, WindowSettings, UploadLimits):
    """How uploads are read and cleaned, and which windows they must have rows for."""

    service_port: int = Field(default=8020, ge=1, le=65535)
    """Port of /healthz, /readyz and /metrics."""
    force_reprocess: bool = False
    """Compute data sets again that are stored already. The stored one stays, and a difference is counted."""
