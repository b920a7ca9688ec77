"""Settings of the command line: the address of the gateway and its key."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr

from flts.settings import Settings

DEFAULT_URL = "http://127.0.0.1:8000"


class CliSettings(Settings):
    """The settings of `flts`; options of the command line replace the address, the key and the key's file."""

    flts_url: str | None = Field(default=None, validation_alias=AliasChoices("FLTS_URL", "GATEWAY_URL", "flts_url"))
    """Address of the gateway; by default the running embedded mode's, or http://127.0.0.1:8000."""
    flts_api_key: SecretStr | None = None
    """The gateway's API key."""
    flts_api_key_file: Path | None = None
    """File that contains the key; by default `FLTS_HOME/api-key` of the embedded mode, for a local gateway only."""
    flts_home: Path = Path(".flts")
    """Data folder of the embedded mode."""
    flts_timeout_seconds: float = Field(default=30, gt=0)
    """Longest wait for an answer of the gateway; ten times as long for uploads, retrains, deletions and the janitor."""
    flts_reconnect_seconds: float = Field(default=120, gt=0)
    """How long `flts`, while it follows a run, tries to reach a gateway that does not answer."""

    def url(self) -> str:
        """Return the gateway's address."""
        if self.flts_url:
            return self.flts_url.rstrip("/")
        try:
            state = json.loads((self.flts_home / "embedded.json").read_text())
            return str(state["gateway_url"]).rstrip("/")
        except (OSError, ValueError, KeyError, TypeError):
            return DEFAULT_URL

    def api_key(self) -> str | None:
        """Return the key, or None if there is none.

        The embedded mode's key is sent only to a gateway on this machine.

        Raises
        ------
        OSError
            If the key's file cannot be read.
        """
        if self.flts_api_key is not None:
            return self.flts_api_key.get_secret_value()
        if self.flts_api_key_file is not None:
            return self.flts_api_key_file.read_text().strip()
        default = self.flts_home / "api-key"
        if is_local(self.url()) and default.is_file():
            return default.read_text().strip()
        return None


def is_local(url: str) -> bool:
    """Return whether an address is ``localhost`` or a loopback address."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
