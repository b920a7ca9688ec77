"""The settings of a data set: how its files are read, and how its rows are prepared for models."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from flts.settings import CommaSeparated, Settings, split_commas

Share = Annotated[float, Field(ge=0, le=1)]
HOLIDAY_PART = re.compile(r"[A-Z0-9]{1,8}")
HOLIDAY_CODE = re.compile(rf"[A-Z]{{2}}(-{HOLIDAY_PART.pattern})?")
"""ISO 3166-1 code of a country, and the code of a region in ISO 3166-2."""


class ReadSettings(Settings):
    """The reading of uploaded files, where a guess is to be overridden. All settings enter config_hash."""

    OVERRIDABLE: ClassVar[bool] = True

    ignore_columns: CommaSeparated = ()
    """Columns to leave out, `note,station`; their cells are not checked."""
    time_format: str = Field(default="", max_length=60)
    """Form of the time column, `DD/MM/YYYY HH:mm`, `%d.%m.%Y`, `epoch`, `epoch ms`, `epoch us`, `excel` or `year`;
    empty: found from the cells."""
    time_zone: str = Field(default="", max_length=60)
    """IANA name of the zone of times without an offset, `Europe/Berlin`; empty: UTC."""
    time_column: str = Field(default="", max_length=400)
    """Column of the times, or the columns of date and time of day, `Date,Time`; empty: found by cells and name."""
    series_column: str = Field(default="", max_length=200)
    """Column that names the series of a row; each series becomes a column. Empty: only a column `unique_id` does."""
    decimal: Literal["", ".", ","] = ""
    """Decimal mark of numbers; empty: guessed."""
    thousands: Literal["", "none", ".", ",", "space", "apostrophe"] = ""
    """Mark between thousands; empty: guessed."""
    missing: CommaSeparated = ()
    """Cells that are missing in addition to the known marks, `n.b.,-999`."""
    encoding: str = Field(default="", max_length=40)
    """Encoding of text files, such as `windows-1252`; empty: guessed."""
    skip_rows: int | None = Field(default=None, ge=0, le=1_000)
    """Lines above the header of a text file; unset: guessed."""
    duplicates: Literal["mean", "last", "first", "refuse"] = "mean"
    """Value of rows with the same time and different values."""

    _split_lists = split_commas("ignore_columns", "missing")

    @field_validator("encoding")
    @classmethod
    def _is_text_encoding(cls, value: str) -> str:
        if value:
            try:
                "".encode(value)
            except (LookupError, UnicodeError):
                msg = "is not the name of an encoding"
                raise ValueError(msg) from None
        return value


class RecipeSettings(ReadSettings):
    """The recipe: the preparation of rows for a model. All settings enter config_hash."""

    OVERRIDABLE: ClassVar[bool] = True
    ADDED_LATER: ClassVar[frozenset[str]] = frozenset(
        {*ReadSettings.model_fields, "step", "past_columns", "future_columns", "holidays"} - {"ignore_columns"}
    )
    """Settings that did not exist in release 0.1.0. They enter config_hash only with a value other than the default, so
    that a data set which does not use them keeps its hash."""

    handle_nans: bool = True
    """Fill missing cells with the last value, then a fitted constant; false keeps only complete rows."""
    nans_threshold: Share = 0.33
    """A column with a larger share of missing training cells is dropped and reported."""
    nans_drop_rows: bool = False
    """Drop rows with missing cells instead of filling them; the series is cut into segments at the gaps."""
    clip_enable: bool = False
    """Clip outliers to bounds fitted on training rows. Intervals are then calibrated on clipped rows, and may cover
    fewer raw values than their nominal share; the scoreboard shows where."""
    clip_method: Literal["iqr", "percentile", "sigma"] = "iqr"
    """Method that fits the bounds."""
    clip_factor: float = Field(default=1.5, gt=0)
    """iqr: quartiles -+ factor x IQR; sigma: mean -+ factor x deviation; percentile: factor % of each side."""
    time_features_enable: bool = True
    """Add sine and cosine of minute of day, day of week and day of year."""
    lags_enable: bool = False
    """Add earlier values of the targets as columns."""
    lags_n: int = Field(default=3, ge=1, le=100)
    """Number of lags."""
    lags_step: int = Field(default=1, ge=1, le=10_000)
    """Number of rows between two lags."""
    scaler: Literal["MinMaxScaler", "StandardScaler", "RobustScaler", "MaxAbsScaler", "none"] = "MinMaxScaler"
    """Scaler of measured columns; time features are not scaled."""
    add_val: float = 0.0
    """Added to every scaled value (for models that need values away from 0)."""
    targets: CommaSeparated = ()
    """Columns to forecast, `down,up`; empty: every numeric column without another role."""
    past_columns: CommaSeparated = Field(default=(), max_length=16)
    """Measured columns that help to forecast the targets and are not forecast, `pressure,wind`."""
    future_columns: CommaSeparated = Field(default=(), max_length=64)
    """Columns whose values are known ahead, `promotion,price`; a forecast request sends their values for its steps."""
    holidays: CommaSeparated = Field(default=(), max_length=8)
    """Public holidays that models take into account: codes of countries and their regions, `DE`, `DE-BY,FR`."""
    train_test_split: float = Field(default=0.8, gt=0, lt=1)
    """Share of rows, from the start, that are training rows if no test file was uploaded."""
    sample_train_rows: int | None = Field(default=None, ge=1)
    """Number of training rows that sampling keeps."""
    sample_test_rows: int | None = Field(default=None, ge=1)
    """Number of test rows that sampling keeps."""
    sample_strategy: Literal["head", "random"] = "head"
    """`head` keeps the first rows; `random` keeps one contiguous block that starts at a row chosen by the seed."""
    sample_seed: int = 42
    """Seed of `random` sampling."""
    step: str = Field(default="", max_length=100)
    """Step of the rows as reports show it: `1 h`, `1 business day`, `1 month, last day`. Finer rows are averaged.
    Empty: the step that the training rows show."""
    extra_hash_salt: str = Field(default="", max_length=200)
    """Any text; a different text gives a different config_hash."""
    max_gap_steps: int = Field(default=12, ge=0, le=10_000)
    """Gaps of at most this many rows are filled; longer gaps cut the series into segments."""

    _split = split_commas("targets", "past_columns", "future_columns", "holidays")

    @field_validator("holidays")
    @classmethod
    def _are_codes(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        codes = tuple(dict.fromkeys(value.upper() for value in values))
        for code in codes:
            if not HOLIDAY_CODE.fullmatch(code):
                msg = f"{code[:20]!r} is not the code of a country, such as DE, or of its region, such as DE-BY"
                raise ValueError(msg)
        return codes


DATA_SETTINGS = frozenset({*ReadSettings.model_fields, "step", "targets", "past_columns", "future_columns", "holidays"})
"""Settings that describe a data set: how its files are read, and the roles of its columns. A retrain keeps them."""
