"""A champion: one promoted bundle, loaded, probed and immutable. An answer comes from exactly one champion."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flts.bundle.forecaster import Forecaster
from flts.bundle.format import Bundle
from flts.bundle.model import BundleModel
from flts.bundle.widening import widened_by
from flts.errors import RejectedError
from flts.forecasting.expanding import few_windows
from flts.forecasting.intervals import Intervals, bounds
from flts.forecasting.matured import MATURED_HORIZONS
from flts.forecasting.series import IntArray, Series
from inference_container.domain.answer_rows import Row, rows_with
from inference_container.domain.history import ISO_STYLE, History
from inference_container.domain.promotion import Promotion
from inference_container.domain.request import Needs

FULL_BATCH = 64  # most requests in one model call
WARM_RUNS = 5
SENT_ORIGINS = 16
"""Forecasts from the rows of a request whose errors widen its intervals at most: a quarter of a full batch."""
INLINE_SECONDS = 0.01  # a longer call would block the event loop, so it runs in a thread

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Held:
    """A target that had one value in all training rows, so that no model learnt it, and that has another value now.

    Its forecast is its last value, and its bounds contain both values.
    """

    position: int
    """Position among the targets."""
    name: str
    constant: float
    last: float


@dataclass(frozen=True, slots=True, eq=False)
class Champion:
    """A promotion whose bundle is loaded, has answered its probe and is warm.

    Frozen and compared by identity: a request keeps the champion of its admission, also after a swap.
    """

    promotion: Promotion
    bundle: Bundle
    forecaster: Forecaster
    needs: Needs
    offsets: FloatArray
    """(h, M, 3) offsets in raw units. A forecast plus its offsets gives the forecast itself (offset 0), its lower and
    its upper bound, at each step up to the longest horizon; NaN where there were too few residuals."""
    answer_head: Mapping[str, Any]
    """The fields of every answer that the champion alone determines."""
    answer_row: Row
    """Makes a row of an answer with the names of ``answer_keys``."""
    answer_keys: tuple[str, ...]
    """Names of an answer's numbers: per target ``<t>``, ``<t>_lower``, ``<t>_upper``."""
    batch_rows: int
    """Most requests in one model call: FULL_BATCH, and fewer if their inputs would need too much memory."""
    row_seconds: float
    """Measured processor seconds per window (or per time) of a full batch."""
    inline: bool
    """Whether a full batch is quick enough to run inside the event loop."""
    intervals: Intervals | None
    """The forecaster's, widened by the errors of forecasts that have matured in the stored rows, as ``offsets`` are."""
    history: History | str = ""
    """The stored rows, from which a request without enough rows is forecast, or the reason why there are none."""

    def held(self, series: Series) -> tuple[Held, ...]:
        """Return the targets that were constant in the training rows and whose last value differs from the constant."""
        found = []
        for name in self.needs.constants:
            cells = series.values[:, series.columns.index(name)]
            known = np.flatnonzero(np.isfinite(cells))
            constant = self.bundle.recipe.constants[name]
            if len(known) and cells[known[-1]] != constant:
                found.append(Held(self.targets.index(name), name, constant, float(cells[known[-1]])))
        return tuple(found)

    def with_history(self, columns: tuple[str, ...], times: IntArray, values: FloatArray) -> Champion:
        """Return the champion with stored rows.

        Parameters
        ----------
        columns : tuple of k names
            The columns of the recipe, in any order.
        times : (n,)
            Epoch seconds, one step of the grid apart.
        values : (n, k)
            Raw units, NaN = missing.

        Raises
        ------
        RejectedError
            ``bad_history`` if a column is missing, or if there are fewer rows than the champion needs.
        """
        needs = self.needs
        if not set(needs.value_columns) <= set(columns) or len(times) < needs.rows_required:
            msg = f"the stored rows of {self.identifier} are not those that its champion needs"
            raise RejectedError(msg, code="bad_history")
        at = [columns.index(name) for name in needs.value_columns]
        style = needs.form.time_format if needs.form is not None else ISO_STYLE
        history = History(times, np.ascontiguousarray(values[:, at]), style)
        intervals = widened_by(self.forecaster, Series(times, columns, values, needs.grid))
        if intervals is None:
            return replace(self, history=history)
        offsets = interval_offsets(self.forecaster, intervals, len(self.offsets))
        return replace(self, history=history, intervals=intervals, offsets=offsets)

    def widened_by(self, series: Series) -> Intervals | None:
        """Return the intervals of a request whose rows show matured forecasts that the stored rows do not, else None.

        The rows must contain the window and a whole calibrated path after it, and the path must be later than the fit
        and than the stored rows. A model whose forecasts would delay other requests keeps the intervals that it has.
        """
        steps, needs = self.bundle.calibrated_steps, self.needs
        if not 0 < steps <= len(series) - needs.rows_required or not self.inline or not needs.reads_values:
            return None
        known = [self.bundle.fitted_until, self.history.until if isinstance(self.history, History) else None]
        until = max((time for time in known if time is not None), default=None)
        if steps > self.bundle.output_seq_len or (until is not None and series.times[-steps] <= until):
            return None
        rows = series.rows(-needs.rows_required - MATURED_HORIZONS * steps)
        return widened_by(self.forecaster, rows, most=SENT_ORIGINS)

    def limited(self, values: FloatArray) -> FloatArray:
        """Return forecasts and bounds (h, M, n) within the limits of their targets."""
        if self.forecaster.limits is None:
            return values
        return self.forecaster.limited(values.swapaxes(1, 2)).swapaxes(1, 2)

    @property
    def identifier(self) -> str:
        """The identifier of the data set that it forecasts."""
        return self.promotion.identifier

    @property
    def targets(self) -> tuple[str, ...]:
        """All targets, in the order of answers."""
        return self.bundle.targets

    def describe(self) -> dict[str, Any]:
        """Return the bundle's fields of ``GET /models``."""
        until = {"history_until": self.history.until_text} if isinstance(self.history, History) else {}
        return {
            **until,
            "input_kind": self.bundle.input_kind,
            "targets": list(self.targets),
            "columns": list(self.needs.columns),
            "future_columns": list(self.needs.future_columns),
            "rows_required": self.needs.rows_required,
            "step": self.needs.grid.text,
            "step_seconds": self.needs.grid.step_seconds,
            "horizon_steps": self.answer_head["horizon_steps"],
            "max_horizon_steps": self.needs.max_horizon_steps,
            "calibrated_steps": self.bundle.calibrated_steps,
            "point": self.bundle.point,
            "reason": self.bundle.reason,
            **_interval_warning(self.bundle),
        }


def load_champion(promotion: Promotion, bundle: Bundle, model_bytes: bytes, *, max_horizon_steps: int) -> Champion:
    """Load a bundle, compare its answers to its probe, and warm it with a full batch.

    Raises
    ------
    RejectedError
        If the bundle is not the promoted one, its model does not load or answers its probe differently.
    """
    for name in ("identifier", "model_type", "config_hash"):
        if getattr(bundle, name) != getattr(promotion, name):
            msg = f"the bundle's {name} is {getattr(bundle, name)}, the pointer says {getattr(promotion, name)}"
            raise RejectedError(msg, code="bad_bundle", field=name)
    forecaster = Forecaster(BundleModel(bundle, model_bytes, threads=1))
    bundle = forecaster.bundle
    needs = _needs(bundle, forecaster, max_horizon_steps)
    batch_rows = min(FULL_BATCH, forecaster.model.signature.batch_rows)
    seconds = _warm(forecaster, batch_rows)
    keys = tuple(f"{name}{end}" for name in bundle.targets for end in ("", "_lower", "_upper"))
    return Champion(
        promotion=promotion,
        bundle=bundle,
        forecaster=forecaster,
        needs=needs,
        offsets=interval_offsets(forecaster, forecaster.intervals, needs.max_horizon_steps),
        answer_head=_answer_head(promotion, bundle),
        answer_row=rows_with(keys),
        answer_keys=keys,
        batch_rows=batch_rows,
        row_seconds=seconds / batch_rows,
        inline=seconds < INLINE_SECONDS,
        intervals=forecaster.intervals,
    )


def _answer_head(promotion: Promotion, bundle: Bundle) -> dict[str, Any]:
    """Return the fields of an answer before its forecasts; some only if they are unusual."""
    head = {
        "status": "SUCCESS",
        "identifier": promotion.identifier,
        "run_id": promotion.run_id,
        "model_type": promotion.model_type,
        "config_hash": promotion.config_hash,
        "horizon_steps": promotion.horizon_steps or bundle.horizon_steps,
        "calibrated_steps": bundle.calibrated_steps,
        **({"point": bundle.point} if bundle.point != "mean" else {}),
        **_interval_warning(bundle),
    }
    return head if promotion.baseline is None else {**head, "baseline": promotion.baseline}


def _interval_warning(bundle: Bundle) -> dict[str, str]:
    warning = few_windows(bundle.metrics) if bundle.calibrated_steps else None
    return {} if warning is None else {"interval_warning": warning}


def _needs(bundle: Bundle, forecaster: Forecaster, limit: int) -> Needs:
    recipe = bundle.recipe
    own = forecaster.max_horizon
    return Needs(
        columns=recipe.columns,
        ignored=frozenset(recipe.dropped),
        reads_values=bundle.reads_values,
        constants=tuple(name for name in recipe.columns if name in recipe.constants and name in recipe.targets),
        rows_required=bundle.rows_required,
        grid=recipe.grid,
        max_gap_steps=recipe.max_gap_steps,
        form=recipe.form,
        max_horizon_steps=limit if own is None else min(own, limit),
        bundle_limits_horizon=own is not None and own <= limit,
        unforecast=tuple(
            name for name in recipe.columns if name not in {*recipe.targets, *recipe.constants, *bundle.future_columns}
        ),
        future_columns=bundle.future_columns,
    )


def interval_offsets(forecaster: Forecaster, intervals: Intervals | None, horizon_steps: int) -> FloatArray:
    """Return a forecast of zeros with its bounds, (h, M, 3): the offsets are the same for every forecast."""
    varying = forecaster.varying
    offsets = np.zeros((horizon_steps, len(forecaster.bundle.targets), 3))
    if not varying:
        return offsets
    limits = None if intervals is None else bounds(intervals, offsets[:, varying, 0])
    offsets[:, varying, 1], offsets[:, varying, 2] = (np.nan, np.nan) if limits is None else limits
    return offsets


def _warm(forecaster: Forecaster, batch_rows: int) -> float:
    """Run a full batch of the probe WARM_RUNS times; return the least processor time in seconds.

    Elapsed time would include the load of other processes, and ``inline`` keeps its value until the next swap.
    """
    batch = forecaster.model.probe_batch(batch_rows)
    quickest = np.inf
    for _ in range(WARM_RUNS):
        start = time.thread_time()
        forecaster.model.run(batch)
        quickest = min(quickest, time.thread_time() - start)
    return float(quickest)
