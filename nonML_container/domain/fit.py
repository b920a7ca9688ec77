"""Fit a Prophet for one target."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from flts.forecasting.series import FloatArray, IntArray
from flts.model_settings import ProphetSettings

if TYPE_CHECKING:
    from prophet import Prophet


class _AtLeast(logging.Filter):
    """Passes log records of at least this level."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= self._level


# Prophet and cmdstanpy log every fit and a missing plotting library. Filters suppress these messages, because the
# packages set the levels of their loggers at import and would overwrite a level set here.
for _name, _least in (("prophet", logging.WARNING), ("prophet.plot", logging.CRITICAL), ("cmdstanpy", logging.WARNING)):
    logging.getLogger(_name).addFilter(_AtLeast(_least))

Optimiser = Literal["exact", "stan"]
LEAST_ROWS = 2
"""Rows with a value that Prophet needs."""
_SWITCH: dict[str, str | bool] = {"auto": "auto", "true": True, "false": False}


def fit_prophet(
    times: IntArray, values: FloatArray, options: ProphetSettings, optimiser: Optimiser, known: FloatArray | None = None
) -> Prophet:
    """Fit Prophet to one series.

    Parameters
    ----------
    times : (n,)
        Epoch seconds.
    values : (n,)
        Raw units; NaN is left out.
    options : ProphetSettings
    optimiser : {"exact", "stan"}
    known : (n, q), optional
        Inputs known ahead, which become additive regressors.

    Returns
    -------
    Prophet
        Fitted, without uncertainty samples: intervals are calibrated on residuals.
    """
    from prophet import Prophet  # noqa: PLC0415 - imported after the loggers have their filters

    from nonML_container.domain.backend import ExactBackend  # noqa: PLC0415 - needed only for a fit, like Prophet

    model = Prophet(
        changepoint_prior_scale=options.prophet_changepoint_prior_scale,
        seasonality_prior_scale=options.prophet_seasonality_prior_scale,
        seasonality_mode=options.prophet_seasonality_mode,
        n_changepoints=options.prophet_n_changepoints,
        changepoint_range=options.prophet_changepoint_range,
        daily_seasonality=_SWITCH[options.prophet_daily_seasonality],
        weekly_seasonality=_SWITCH[options.prophet_weekly_seasonality],
        yearly_seasonality=_SWITCH[options.prophet_yearly_seasonality],
        uncertainty_samples=0,
    )
    arguments: dict[str, object] = {}
    if optimiser == "exact":
        model.stan_backend = ExactBackend(model.stan_backend)
    if optimiser == "stan" or options.prophet_seasonality_mode == "multiplicative":
        arguments["seed"] = options.seed
    if known is not None:
        for name in _names(known):
            model.add_regressor(name, mode="additive")
    model.fit(_frame(times, known, y=values), **arguments)
    return model


def predict(model: Prophet, times: IntArray, known: FloatArray | None = None) -> FloatArray:
    """Return Prophet's own forecast at these times (n,) with inputs known ahead (n, q): (n,), raw units."""
    order = np.argsort(times, kind="stable")
    answer = np.empty(len(times))
    # Prophet returns its forecasts sorted by time. It therefore gets sorted times, and `order` puts each forecast at
    # its own place in `times`.
    answer[order] = model.predict(_frame(times[order], None if known is None else known[order]))["yhat"]
    return answer


def _frame(times: IntArray, known: FloatArray | None, **columns: FloatArray) -> pd.DataFrame:
    regressors = {} if known is None else dict(zip(_names(known), known.T, strict=True))
    return pd.DataFrame({"ds": pd.to_datetime(times, unit="s"), **columns, **regressors})


def _names(known: FloatArray) -> list[str]:
    """Return names of the regressors, which are none of the names that Prophet reserves."""
    return [f"known_{at}" for at in range(known.shape[1])]
