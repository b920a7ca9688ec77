"""The optimiser that Prophet uses here: the exact solution if the problem has one, else Prophet's own search."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flts.observability.logs import get_logger
from nonML_container.domain.posterior import NotConvergedError, Problem, most_likely

LINEAR = 0
"""Prophet's ``trend_indicator`` of a linear trend."""

log = get_logger(__name__)


class ExactBackend:
    """Replaces Prophet's Stan backend, and calls it for problems without an exact solution.

    Parameters
    ----------
    stan : object
        Prophet's own backend.
    """

    def __init__(self, stan: Any) -> None:
        self._stan = stan
        self.stan_fit: Any = None
        """Stan's result, which Prophet copies; None if Stan did not run."""

    def fit(self, stan_init: dict[str, Any], stan_data: dict[str, Any], **options: Any) -> dict[str, NDArray[Any]]:
        """Return the most likely parameters, each (1, length), as Prophet's backends do."""
        features = np.asarray(stan_data["X"], dtype=np.float64)
        additive = not np.asarray(stan_data["s_m"]).any() or not features.any()
        if stan_data["trend_indicator"] == LINEAR and additive:
            try:
                return self._solve(stan_data, features)
            except NotConvergedError as error:
                log.warning("prophet_falls_back_on_stan", reason=str(error))
        fitted: dict[str, NDArray[Any]] = self._stan.fit(stan_init, stan_data, **options)
        self.stan_fit = self._stan.stan_fit
        return fitted

    def _solve(self, data: dict[str, Any], features: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        problem = Problem(
            t=np.asarray(data["t"], dtype=np.float64),
            y=np.asarray(data["y"], dtype=np.float64),
            changes=np.asarray(data["t_change"], dtype=np.float64),
            features=features,
            deviations=np.asarray(data["sigmas"], dtype=np.float64),
            change_scale=float(data["tau"]),
        )
        found = most_likely(problem)
        return {
            "k": np.array([[found.rate]]),
            "m": np.array([[found.offset]]),
            "delta": found.changes[None],
            "beta": found.weights[None],
            "sigma_obs": np.array([[found.noise]]),
        }
