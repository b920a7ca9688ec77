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
    """Every field is also an option of each command."""

    flts_url: str | None = Field(default=None, validation_alias=AliasChoices("FLTS_URL", "GATEWAY_URL", "flts_url"))
    """Address of the gateway; the running embedded mode's, or http://127.0.0.1:8000, unless given."""
    flts_api_key: SecretStr | None = None
    """The gateway's API key."""
    flts_api_key_file: Path | None = None
    """File that holds the key; the embedded mode's `FLTS_HOME/api-key` for a gateway on this machine unless given."""
    flts_home: Path = Path(".flts")
    """Data folder of the embedded mode."""
    flts_timeout_seconds: float = Field(default=30, gt=0)
    """Longest wait for an answer of the gateway; uploads are given ten times as long."""
    flts_reconnect_seconds: float = Field(default=120, gt=0)
    """How long following a run goes on trying to reach a gateway that is away."""

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
        """Return the key, or None where there is none.

        The embedded mode's key stays on this machine: it is not sent to a gateway elsewhere.

        Raises
        ------
        OSError
            If the file that was named cannot be read.
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
    """Return whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
