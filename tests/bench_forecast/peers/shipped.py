"""Write the series that statsmodels and statsforecast ship as CSV files: ``python shipped.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import statsmodels.api as sm
from statsforecast.utils import AirPassengersDF

ECONOMY = ["realgdp", "realcons", "realinv", "unemp"]


def main() -> int:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    data = sm.datasets
    _write(folder / "co2.csv", data.co2.load_pandas().data)
    sunspots = data.sunspots.load_pandas().data
    _write(folder / "sunspots.csv", _yearly(sunspots["YEAR"], sunspots["SUNACTIVITY"]))
    nile = data.nile.load_pandas().data
    _write(folder / "nile.csv", _yearly(nile["year"], nile["volume"]))
    years = data.elnino.load_pandas().data.set_index("YEAR")  # a row for each year, a column for each month
    starts = pd.date_range(f"{int(years.index[0])}-01-01", periods=years.size, freq="MS")
    _write(folder / "elnino.csv", pd.DataFrame({"temperature": years.to_numpy().ravel()}, index=starts))
    economy = data.macrodata.load_pandas().data
    starts = pd.date_range(f"{int(economy['year'][0])}-01-01", periods=len(economy), freq="QS")
    _write(folder / "macrodata.csv", economy[ECONOMY].set_index(starts))
    starts = pd.date_range("1949-01-01", periods=len(AirPassengersDF), freq="MS")
    _write(folder / "airpassengers.csv", pd.DataFrame({"passengers": AirPassengersDF["y"].to_numpy()}, index=starts))
    return 0


def _yearly(years: pd.Series, values: pd.Series) -> pd.DataFrame:
    starts = [f"{int(year)}-01-01" for year in years]  # text, because nanoseconds reach no further back than 1677
    return pd.DataFrame({str(values.name).lower(): values.to_numpy()}, index=starts)


def _write(path: Path, table: pd.DataFrame) -> None:
    table.to_csv(path, index_label="time")


if __name__ == "__main__":
    raise SystemExit(main())
