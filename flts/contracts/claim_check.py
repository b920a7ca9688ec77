"""A claim check: the place of an object in the store, and the hash and size of its bytes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ClaimCheck(BaseModel):
    """A message carries this instead of the data."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    bucket: str = Field(min_length=1, max_length=255)
    object_key: str = Field(min_length=1, max_length=1024)
    size: int = Field(ge=0)
    """Bytes."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rows: int | None = Field(default=None, ge=0)
    """Rows of the table, where the object is one."""
    columns: int | None = Field(default=None, ge=0)
    """Number of columns, where the object is a table."""
