"""The champions on disk: one folder per promotion, and a list of pointers.

``<CACHE_DIR>/pointers.json`` is the last list of pointers. ``<identifier>/<pipeline_run_id>-<bundle sha256>/`` holds a
bundle and its pointer, and the history beside them. Each is written under a temporary name and then renamed, so a
killed process leaves a complete entry or none. The replica serves the latest promotion whose bundle loads, and then
removes the others. Names that begin with ``_`` cannot be identifiers.

The pointer states the stage of the champion. The name of the folder does not, because earlier releases make the same
names. So two stages of one run with the same bundle share a folder. Releases without histories ignore the file of the
history.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flts.bundle import BUNDLE_FILE, MODEL_FILE
from flts.contracts.champion_stage import Order, pointer_order, stage_of
from flts.contracts.ids import IDENTIFIER_PATTERN
from flts.errors import HashMismatchError, RejectedError
from flts.killpoints import reached
from inference_container.domain.promotion import Promotion

if TYPE_CHECKING:
    from flts.bundle.format import Bundle
    from flts.forecasting.series import Series

POINTERS_FILE = "pointers.json"
POINTER_FILE = "pointer.json"
HISTORY_FILE = "history.rows"
SPOOL_FOLDER = "_logs"
UNFINISHED_PREFIX = "_unfinished-"


@dataclass(frozen=True, slots=True)
class Pointers:
    """The list of pointers: identifiers with a champion, and those that wait for one."""

    champions: tuple[str, ...]
    waiting: tuple[str, ...]
    """Identifiers with runs, but no champion yet."""


class ChampionCache:
    """The cache folder of a replica.

    Parameters
    ----------
    path : Path
        Made if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spool = path / SPOOL_FOLDER
        """Forecast logs that wait for the store."""
        self.path.mkdir(parents=True, exist_ok=True)

    def pointers(self) -> Pointers | None:
        """Return the list that was written last, or None if the disk holds none."""
        document = _read(self.path / POINTERS_FILE)
        if document is None:
            return None
        return Pointers(tuple(document.get("champions", ())), tuple(document.get("waiting", ())))

    def put_pointers(self, pointers: Pointers) -> None:
        """Write the list to disk."""
        document = {"champions": pointers.champions, "waiting": pointers.waiting}
        reached("cache-write.before", "pointers")
        self._write(self.path / POINTERS_FILE, document)
        reached("cache-write.after", "pointers")

    def identifiers(self) -> Iterator[str]:
        """Yield the identifiers that have a folder."""
        for entry in sorted(os.scandir(self.path), key=lambda entry: entry.name):
            if entry.is_dir() and IDENTIFIER_PATTERN.fullmatch(entry.name):
                yield entry.name

    def folder(self, promotion: Promotion) -> Path:
        """Return the folder of a promotion's bundle."""
        return self.path / promotion.identifier / f"{promotion.pipeline_run_id}-{promotion.bundle.sha256}"

    def holds(self, promotion: Promotion) -> bool:
        """Return whether a promotion's complete bundle is in the cache, with the pointer of its stage."""
        return self.has_bundle(promotion) and self.stage(self.folder(promotion)) == promotion.stage

    def has_bundle(self, promotion: Promotion) -> bool:
        """Return whether a promotion's complete bundle is in the cache, with the pointer of any stage of its run."""
        return (self.folder(promotion) / POINTER_FILE).exists()

    def stage(self, folder: Path) -> str:
        """Return the stage of the pointer that is stored with a bundle."""
        return stage_of(_read(folder / POINTER_FILE) or {})

    def put_pointer(self, promotion: Promotion) -> Path:
        """Replace the pointer that is stored with a bundle, because another stage of the run has the same bundle."""
        folder = self.folder(promotion)
        self._write(folder / POINTER_FILE, dict(promotion.document))
        return folder

    def put_bundle(self, promotion: Promotion, bundle: bytes, model: bytes) -> Path:
        """Write a verified bundle and its pointer, all or nothing."""
        folder = self.folder(promotion)
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED_PREFIX, dir=self.path))
        try:
            (unfinished / BUNDLE_FILE).write_bytes(bundle)
            (unfinished / MODEL_FILE).write_bytes(model)
            (unfinished / POINTER_FILE).write_text(json.dumps(dict(promotion.document)))
            unfinished.chmod(0o755)
            reached("cache-write.before", "bundle", promotion.identifier)
            if folder.exists():
                shutil.rmtree(folder)
            unfinished.rename(folder)
            reached("cache-write.after", "bundle", promotion.identifier)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return folder

    def has_history(self, folder: Path) -> bool:
        """Return whether a bundle's folder has the file of a history."""
        return (folder / HISTORY_FILE).exists()

    def put_history(self, identifier: str, folder: Path, data: bytes) -> None:
        """Write the file of a history beside a bundle, all or nothing.

        Raises
        ------
        OSError
            If it cannot be written, as for a bundle that was removed meanwhile.
        """
        handle, name = tempfile.mkstemp(prefix=UNFINISHED_PREFIX, dir=self.path)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            reached("cache-write.before", "history", identifier)
            Path(name).replace(folder / HISTORY_FILE)
            reached("cache-write.after", "history", identifier)
        finally:
            Path(name).unlink(missing_ok=True)

    def read_history(self, folder: Path) -> Series | str | None:
        """Return the history beside a bundle, or the reason why there is none; None without its file.

        Raises
        ------
        RejectedError
            If the file is damaged. It is removed, so that the next round of the fetching child writes it again.
        """
        from inference_container.history_file import decode  # noqa: PLC0415 - imports numpy, as `read_bundle`

        path = folder / HISTORY_FILE
        try:
            return decode(path.read_bytes())
        except OSError:
            return None
        except RejectedError:
            path.unlink(missing_ok=True)
            raise

    def read_promotion(self, identifier: str, folder: Path) -> Promotion:
        """Read the pointer that is stored with a bundle.

        Raises
        ------
        RejectedError
            If the pointer is missing or malformed.
        """
        document = _read(folder / POINTER_FILE)
        if document is None:
            msg = f"{folder} holds no pointer"
            raise RejectedError(msg, code="bad_pointer")
        return Promotion.read(identifier, document)

    def read_bundle(self, promotion: Promotion, folder: Path) -> tuple[Bundle, bytes]:
        """Read a bundle and check its SHA-256 against the pointer's.

        Raises
        ------
        RejectedError
            If the bundle is damaged.
        """
        from flts.bundle.load import read_bundle_folder  # noqa: PLC0415 - imports numpy, which the fetching child does not need

        bundle, model = read_bundle_folder(folder)
        digest = hashlib.sha256((folder / BUNDLE_FILE).read_bytes()).hexdigest()
        if digest != promotion.bundle.sha256:
            promised = promotion.bundle.sha256
            msg = f"{folder / BUNDLE_FILE} has the SHA-256 {digest[:12]}..., promised was {promised[:12]}..."
            raise HashMismatchError(msg)
        return bundle, model

    def folders(self, identifier: str) -> Sequence[Path]:
        """Return the folders of an identifier's complete bundles, the latest promotion last."""
        home = self.path / identifier
        whole = [folder for folder in home.iterdir() if (folder / POINTER_FILE).exists()] if home.is_dir() else []
        return sorted(whole, key=self._order)

    def keep_only(self, folder: Path) -> None:
        """Remove every bundle of the identifier except this one."""
        for other in self.folders(folder.parent.name):
            if other != folder:
                self.drop_folder(other)

    def drop_folder(self, folder: Path) -> None:
        """Remove a bundle. If it is the promoted one, the next round of the fetching child downloads it again."""
        shutil.rmtree(folder, ignore_errors=True)

    def drop(self, identifier: str) -> None:
        """Remove the bundles of an identifier."""
        shutil.rmtree(self.path / identifier, ignore_errors=True)

    def drop_logs(self, identifier: str) -> None:
        """Remove an identifier's forecast logs that wait for the store."""
        shutil.rmtree(self.spool / identifier, ignore_errors=True)

    def remove_unfinished(self) -> None:
        """Remove the temporary folders and files that a killed process left."""
        for path in self.path.glob(f"{UNFINISHED_PREFIX}*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _order(self, folder: Path) -> tuple[Order, str]:
        run = folder.name.rpartition("-")[0]
        return pointer_order(run, self.stage(folder)), folder.name

    def _write(self, path: Path, document: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=UNFINISHED_PREFIX, dir=self.path)
        with os.fdopen(handle, "w") as file:
            json.dump(document, file)
        Path(name).replace(path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
