"""A fitted THETA and its forecasts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from flts.forecasting.series import FloatArray, IntArray

Kind = Literal["none", "additive", "multiplicative"]


@dataclass(frozen=True, slots=True)
class Adjustment:
    """How a series is seasonally adjusted: not at all, by subtraction or by division.

    Parameters
    ----------
    kind : {"none", "additive", "multiplicative"}
    season : int
        Position of the season among those of the table; 0 for none.
    """

    kind: Kind
    season: int = 0

    def adjust(self, values: FloatArray, profile: FloatArray | None) -> FloatArray:
        """Return values (...) without their season; ``profile`` (...) is that of each value."""
        if profile is None:
            return values
        return values / profile if self.kind == "multiplicative" else values - profile


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The weights of the rows that one adjustment leaves; they contain the part's share in the forecast.

    Parameters
    ----------
    adjustment : Adjustment
    profile : (s, k), optional
        Season of each target in its units, or as factors.
    share : (k,)
        Share of this part in the forecast.
    weights : (k, L, H)
        Of the adjusted rows, oldest first.
    bias : (k, H)
    """

    adjustment: Adjustment
    profile: FloatArray | None
    share: FloatArray
    weights: FloatArray
    bias: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class ThetaModel:
    """Forecasts all steps at once: each part is linear in its seasonally adjusted rows.

    A `flts.forecasting.linear.model.PathModel`.

    Parameters
    ----------
    targets : (k,)
        Columns that are forecast.
    horizon : int
        H.
    rows_required : int
        L.
    parts : tuple of Part
        Their shares add up to 1.
    """

    targets: IntArray
    horizon: int
    rows_required: int
    parts: tuple[Part, ...]

    def __call__(self, past: FloatArray, places: IntArray, _clock: FloatArray | None = None) -> FloatArray:
        """Forecast H steps.

        Parameters
        ----------
        past : (b, L, m)
            The last ``rows_required`` rows of all columns, in the units of the fitted values.
        places : (b, L + H, S)
            Index of each of these rows and of each step in the profile of each season.

        Returns
        -------
        (b, H, k)
        """
        own = past[..., self.targets]
        answer = np.zeros((len(past), self.horizon, len(self.targets)))
        for part in self.parts:
            known = before = None
            if part.profile is not None:
                profile = part.profile[np.minimum(places[..., part.adjustment.season], len(part.profile) - 1)]
                before, known = profile[:, : self.rows_required], profile[:, self.rows_required :]
            rest = part.adjustment.adjust(own, before)
            forecast = (rest.transpose(2, 0, 1) @ part.weights + part.bias[:, None]).transpose(1, 2, 0)
            if known is not None and part.adjustment.kind == "multiplicative":
                forecast = forecast * known
            elif known is not None:
                forecast = forecast + part.share * known
            answer += forecast
        return answer
