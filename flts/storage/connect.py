"""Create the adapter of the object store that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flts.settings import ServiceSettings

if TYPE_CHECKING:
    from flts.settings import StoreSettings
    from flts.storage.ports import ObjectStore


def open_store(settings: StoreSettings, namespace_prefix: str = "") -> ObjectStore:
    """Return the object store; it connects at the first call.

    Parameters
    ----------
    settings : StoreSettings
        The adapter, and its address or folder.
    namespace_prefix : str
        Prefix of the bucket names; it is converted to lower case, which S3 requires.
    """
    store = _adapter(settings, namespace_prefix)
    if isinstance(settings, ServiceSettings) and settings.kill_points is not None:
        from flts.storage.mortal import MortalStore  # noqa: PLC0415 - for tests only

        return MortalStore(store)
    return store


def _adapter(settings: StoreSettings, namespace_prefix: str) -> ObjectStore:
    # The adapters are imported here, so that a service with a store in a folder does not import boto3.
    if settings.store == "filesystem":
        from flts.storage.filesystem import FilesystemStore  # noqa: PLC0415 - see above

        assert settings.store_path is not None  # the settings class requires it
        return FilesystemStore(settings.store_path, namespace_prefix)
    from flts.storage.s3 import S3Store  # noqa: PLC0415 - see above

    return S3Store(settings, namespace_prefix)
