"""The data sets of the bench: generated ones, those that packages ship, and files of the caller."""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flts.forecasting.series import FloatArray
from flts.ingest.sample import write_sample

HOUR, DAY = 3_600, 86_400
START = np.datetime64("2022-01-03T00:00:00")  # a Monday


@dataclass(frozen=True)
class DataSet:
    """An upload, and how its forecasts are judged."""

    name: str
    train: bytes
    test: bytes | None = None
    """None: preprocess keeps the last rows of `train` for the test."""
    horizon: int | None = None
    """Steps; None for the horizon of the run."""
    seasons: tuple[int, ...] = ()
    """In rows, the shortest first, for the peers and for MASE; if empty, those that the product finds."""
    targets: tuple[str, ...] = ()
    """Columns that are judged; all targets if empty."""
    reach: int = 0
    """Steps from an origin to the last row at least: shorter horizons can have the origins of a longer one."""


@dataclass(frozen=True)
class Source:
    """A data set by its seed."""

    name: str
    make: Callable[[int], DataSet]
    seeded: bool
    """Whether the seed changes the rows."""


def generated() -> list[Source]:
    """Return the generated sets: one kind of data each."""
    return [Source(name, make, seeded=True) for name, make in _GENERATED.items()]


def chosen(names: Iterable[str], shipped: Callable[[], Path], horizon: int | None) -> list[Source]:
    """Return the sources that the caller names.

    Parameters
    ----------
    names : iterable of str
        Of generated or shipped sets, paths of CSV files, or paths of TOML files with a table for each set: ``file``
        and, if needed, ``test``, ``horizon``, ``seasons``, ``targets``, ``reach``.
    shipped : callable
        Returns the folder of the shipped sets; called only if one is named.
    horizon : int, optional
        Replaces the horizon of every set.

    Raises
    ------
    SystemExit
        If there is no such set or file.
    """
    known = {source.name: source for source in generated()}
    found: list[Source] = []
    for name in names:
        path = Path(name)
        if name in known:
            found.append(known[name])
        elif name in SHIPPED:
            found.append(_fixed(_from_file(name, shipped() / f"{name}.csv", SHIPPED[name])))
        elif path.suffix == ".toml" and path.is_file():
            found += [
                _fixed(_from_file(each, path.parent / options["file"], options))
                for each, options in tomllib.loads(path.read_text()).items()
            ]
        elif path.is_file():
            found.append(_fixed(_from_file(path.stem, path, {})))
        else:
            msg = f"{name} is neither a file nor one of {', '.join([*known, *SHIPPED])}"
            raise SystemExit(msg)
    return [one if horizon is None else _with_horizon(one, horizon) for one in found]


def csv_of(times: Iterable[Any], columns: Mapping[str, FloatArray]) -> bytes:
    """Return a CSV of columns (rows,) at these times."""
    values = np.column_stack(list(columns.values()))
    lines = [",".join(["time", *columns])]
    lines += [f"{time},{','.join(f'{value:.6g}' for value in row)}" for time, row in zip(times, values, strict=True)]
    return "\n".join([*lines, ""]).encode()


def _fixed(data: DataSet) -> Source:
    return Source(data.name, lambda _: data, seeded=False)


def _with_horizon(source: Source, horizon: int) -> Source:
    return replace(source, make=lambda seed: replace(source.make(seed), horizon=horizon))


def _from_file(name: str, path: Path, options: Mapping[str, Any]) -> DataSet:
    test = options.get("test")
    return DataSet(
        name,
        path.read_bytes(),
        (path.parent / test).read_bytes() if test else None,
        horizon=options.get("horizon"),
        seasons=tuple(options.get("seasons", ())),
        targets=tuple(options.get("targets", ())),
        reach=options.get("reach", 0),
    )


SHIPPED: dict[str, dict[str, Any]] = {
    "airpassengers": {"horizon": 12, "seasons": [12]},
    "co2": {"horizon": 52, "seasons": [52]},
    "elnino": {"horizon": 12, "seasons": [12]},
    "macrodata": {"horizon": 8, "seasons": [4]},
    "nile": {"horizon": 5},
    "sunspots": {"horizon": 11, "seasons": [11]},
}
"""Sets that statsmodels (``airpassengers``: statsforecast) ships, written by ``peers/shipped.py``."""


def _waves(rows: int, season: int, harmonics: FloatArray) -> FloatArray:
    """Return a periodic curve (rows,) from (k, 2) amplitudes of sine and cosine."""
    angle = 2 * np.pi * np.arange(rows)[:, None] * np.arange(1, len(harmonics) + 1) / season
    curve: FloatArray = np.sin(angle) @ harmonics[:, 0] + np.cos(angle) @ harmonics[:, 1]
    return curve


def _smooth(noise: FloatArray, persistence: float) -> FloatArray:
    """Return a first-order autoregression (rows,) driven by noise (rows,)."""
    out = np.empty_like(noise)
    last = 0.0
    for at, shock in enumerate(noise):
        out[at] = last = persistence * last + shock
    return out


def _hourly(seed: int) -> DataSet:
    """Return a daily and a weekly course with correlated noise, 18 weeks."""
    random, rows = np.random.default_rng([1, seed]), 3_024
    level = 100 + _waves(rows, 24, random.normal(0, 8, (3, 2))) + _waves(rows, 168, random.normal(0, 6, (3, 2)))
    values = level + _smooth(random.normal(0, 2, rows), 0.8)
    times = START + np.arange(rows) * np.timedelta64(HOUR, "s")
    return DataSet("hourly", csv_of(times, {"load": values}), horizon=24, seasons=(24, 168))


def _business_days(seed: int) -> DataSet:
    """Return a series of weekdays with a weekly course and a slowly drifting level."""
    random, rows = np.random.default_rng([2, seed]), 1_200
    days = np.busday_offset(START.astype("datetime64[D]"), np.arange(rows))
    course = random.normal(0, 6, 5)[np.arange(rows) % 5]
    values = 200 + course + random.normal(0, 0.7, rows).cumsum() + random.normal(0, 4, rows)
    return DataSet("business-days", csv_of(days, {"orders": values}), horizon=10, seasons=(5,))


def _monthly(seed: int) -> DataSet:
    """Return fifteen years with growth and a season that grows with the level."""
    random, rows = np.random.default_rng([3, seed]), 180
    months = START.astype("datetime64[M]") - rows + np.arange(rows)
    growth = 0.006 * np.arange(rows) + random.normal(0, 0.01, rows).cumsum()
    course = _waves(rows, 12, random.normal(0, 0.12, (3, 2)))
    values = 120 * np.exp(growth + course + random.normal(0, 0.03, rows))
    return DataSet("monthly", csv_of(months.astype("datetime64[D]"), {"passengers": values}), horizon=12, seasons=(12,))


def _intermittent(seed: int) -> DataSet:
    """Return daily demand that is 0 on most days, more often on some days of the week."""
    random, rows = np.random.default_rng([4, seed]), 1_500
    chance = np.clip(0.2 + random.normal(0, 0.12, 7), 0.02, 0.6)[np.arange(rows) % 7]
    values = np.where(random.random(rows) < chance, 1.0 + random.poisson(3, rows), 0.0)
    days = START.astype("datetime64[D]") + np.arange(rows)
    return DataSet("intermittent", csv_of(days, {"demand": values}), horizon=28, seasons=(7,))


def _walk(seed: int) -> DataSet:
    """Return a random walk: no forecast is better than the last value."""
    random, rows = np.random.default_rng([5, seed]), 2_000
    times = START + np.arange(rows) * np.timedelta64(HOUR, "s")
    return DataSet(
        "walk", csv_of(times, {"price": 100 + random.normal(0, 1, rows).cumsum()}), horizon=24, seasons=(24,)
    )


def _columns(seed: int) -> DataSet:
    """Return four columns of which the first leads the second by six rows, and two share a daily course."""
    random, rows, lead = np.random.default_rng([6, seed]), 2_880, 6
    course = _waves(rows, 144, random.normal(0, 3, (2, 2)))
    cause = _smooth(random.normal(0, 1, rows + lead), 0.95)
    columns = {
        "inflow": 20 + 2 * cause[lead:],
        "level": 50 + 3 * cause[:-lead] + random.normal(0, 0.5, rows),
        "temperature": 15 + course + _smooth(random.normal(0, 0.3, rows), 0.9),
        "demand": 80 - 2 * course + random.normal(0, 1.5, rows),
    }
    times = START + np.arange(rows) * np.timedelta64(600, "s")
    return DataSet("columns", csv_of(times, columns), horizon=36, seasons=(144,))


def _sample(seed: int) -> DataSet:
    """Return the sample that the demo uploads, with other random numbers for each seed."""
    with tempfile.TemporaryDirectory() as folder:
        train, test = (path.read_bytes() for path in write_sample(Path(folder), seed=seed))
    return DataSet("sample", train, test)


_GENERATED: dict[str, Callable[[int], DataSet]] = {
    "hourly": _hourly,
    "business-days": _business_days,
    "monthly": _monthly,
    "intermittent": _intermittent,
    "walk": _walk,
    "columns": _columns,
    "sample": _sample,
}
