"""A claim check: the place of an object in the store, and the hash and size of its bytes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ClaimCheck(BaseModel):
    """The reference to an object that a message carries instead of the data."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    bucket: str = Field(min_length=1, max_length=255)
    object_key: str = Field(min_length=1, max_length=1024)
    size: int = Field(ge=0)
    """Size of the object in bytes."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rows: int | None = Field(default=None, ge=0)
    """Number of rows, if the object is a table."""
    columns: int | None = Field(default=None, ge=0)
    """Number of columns, if the object is a table."""
