"""Create the adapter of the object store that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flts.settings import ServiceSettings

if TYPE_CHECKING:
    from flts.settings import StoreSettings
    from flts.storage.ports import ObjectStore


def open_store(settings: StoreSettings, namespace_prefix: str = "") -> ObjectStore:
    """Return the object store; nothing is connected until its first call.

    Parameters
    ----------
    settings : StoreSettings
        Which adapter, and where it stores.
    namespace_prefix : str
        Precedes the buckets' names, in lower case as S3 wants them.
    """
    store = _adapter(settings, namespace_prefix)
    if isinstance(settings, ServiceSettings) and settings.kill_points is not None:
        from flts.storage.mortal import MortalStore  # noqa: PLC0415 - for tests only

        return MortalStore(store)
    return store


def _adapter(settings: StoreSettings, namespace_prefix: str) -> ObjectStore:
    # Imported here: a store in a folder needs no boto3.
    if settings.store == "filesystem":
        from flts.storage.filesystem import FilesystemStore  # noqa: PLC0415 - see above

        assert settings.store_path is not None  # the settings class refuses to load without it
        return FilesystemStore(settings.store_path, namespace_prefix)
    from flts.storage.s3 import S3Store  # noqa: PLC0415 - see above

    return S3Store(settings, namespace_prefix)
