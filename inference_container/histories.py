"""The histories that the fetching child puts into the cache: the last rows of each champion's data set.

The inference worker writes them to the store, because the server's image cannot read Parquet. A champion is served
without a history if there is none in the store, or if its rows are not those that the champion needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flts.errors import FltsError, NotFoundError, RejectedError, RetryableError
from flts.observability.logs import get_logger
from flts.storage import layout
from flts.storage.ports import ObjectStore
from inference_container.cache import ChampionCache

if TYPE_CHECKING:
    from flts.forecasting.fitted import FittedRecipe
    from flts.forecasting.series import Series

log = get_logger(__name__)

SPARE_ROWS = 100  # rows beyond those that a request can need
MATURED_CELLS = 250_000
"""Cells of the rows that show matured forecasts, by which the champion's intervals are widened; 2 MB of doubles."""
MOST_BYTES = 20 * 2**20
"""Bytes of a stored history; the worker writes at most 2,000,000 cells, 16 MB of doubles."""


class Histories:
    """Puts the histories of champions into the cache. A failure never reaches the caller.

    Parameters
    ----------
    store : ObjectStore
    bucket : str
        The bucket of processed data.
    cache : ChampionCache
    """

    def __init__(self, store: ObjectStore, bucket: str, cache: ChampionCache) -> None:
        self._store = store
        self._bucket = bucket
        self._cache = cache

    def add(self, identifier: str, folder: Path) -> bool:
        """Put the history of a champion beside its bundle; return whether the folder has one now, or a reason for none.

        If the store has no history yet or does not answer, the folder has neither, and the next round tries again.
        """
        try:
            content = self._content(identifier, folder)
        except (NotFoundError, RetryableError) as error:
            log.info("history_waits", identifier=identifier, error=error)
            return False
        except FltsError as error:
            log.warning("history_missing", identifier=identifier, error=error)
            content = error.message
        from inference_container.history_file import encode  # noqa: PLC0415 - see `_content`

        try:
            self._cache.put_history(identifier, folder, encode(content))
        except OSError as error:
            log.warning("history_waits", identifier=identifier, error=error)
            return False
        return True

    def add_missing(self) -> list[tuple[str, str]]:
        """Add the histories that the cache lacks, as after an update from a release without histories.

        Returns
        -------
        list of (str, str)
            Identifier and name of the folder of each champion whose history was added.
        """
        latest = [(name, folder) for name in self._cache.identifiers() for folder in self._cache.folders(name)[-1:]]
        lacking = [(name, folder) for name, folder in latest if not self._cache.has_history(folder)]
        return [(name, folder.name) for name, folder in lacking if self.add(name, folder)]

    def _content(self, identifier: str, folder: Path) -> Series | str:
        promotion = self._cache.read_promotion(identifier, folder)
        data = self._get(layout.HISTORY(identifier, promotion.config_hash))
        # Imported here and not at the top, because it imports numpy, and most rounds of the child add no history.
        from flts.forecasting.matured import MATURED_HORIZONS  # noqa: PLC0415 - see above
        from inference_container.history_file import decode  # noqa: PLC0415

        bundle, _ = self._cache.read_bundle(promotion, folder)
        content = decode(data)
        if isinstance(content, str):
            return content
        matured = min(MATURED_HORIZONS * bundle.calibrated_steps, MATURED_CELLS // len(bundle.recipe.columns))
        matured = matured if bundle.format_version > 1 else 0  # format 1 does not state the last row of the fit
        return needed_rows(bundle.recipe, bundle.rows_required, content, spare=max(SPARE_ROWS, matured))

    def _get(self, key: str) -> bytes:
        size = self._store.head(self._bucket, key).size
        if size > MOST_BYTES:
            msg = f"the stored rows have {size} bytes, more than {MOST_BYTES}"
            raise RejectedError(msg, code="bad_history")
        data, _ = self._store.get(self._bucket, key)
        return data


def needed_rows(recipe: FittedRecipe, rows_required: int, series: Series, *, spare: int = SPARE_ROWS) -> Series:
    """Return those of the last rows of a data set that requests to a champion can need, in the recipe's columns.

    These are the rows after the last long gap, and ``spare`` further ones. If the recipe leaves out rows with missing
    cells, they are the last complete rows without a gap between them.

    Raises
    ------
    RejectedError
        If the rows are on another grid, lack a column, or are too few.
    """
    from flts.forecasting.recipe import kept_rows  # noqa: PLC0415 - imports numpy, as in `Histories.add`
    from flts.forecasting.series import Series  # noqa: PLC0415

    if series.grid != recipe.grid:
        msg = f"the stored rows are at steps of {series.grid.text}, the champion forecasts steps of {recipe.grid.text}"
        raise RejectedError(msg, code="wrong_step")
    series = series.select(recipe.columns)
    if recipe.drops_rows:
        kept = kept_rows(recipe, series)
        series = Series(series.times[kept], series.columns, series.values[kept], series.grid)
    pieces = series.segments()
    if recipe.drops_rows:
        pieces = [piece for piece in pieces if piece.stop - piece.start >= rows_required]
    found = pieces[-1].stop - pieces[-1].start if pieces else 0
    if found < rows_required:
        msg = f"{found} stored rows follow the last long gap, and the champion needs {rows_required}"
        raise RejectedError(msg, code="too_few_rows")
    wanted = rows_required + recipe.max_gap_steps + spare
    return series.rows(max(pieces[-1].start, pieces[-1].stop - wanted), pieces[-1].stop)
