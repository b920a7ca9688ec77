"""The protocol between the server and its fetching child: JSON over pipes, one order or one fact per line."""

from __future__ import annotations

from typing import Literal

import msgspec


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An order to the child, on its standard input; one per round."""

    first: list[str] = []
    """Identifiers to fetch before all others."""
    only: list[str] | None = None
    """Identifiers whose pointers alone are read, because messages named them; None reads and lists all pointers."""
    skip: list[str] = []
    """Identifiers that failed a short time ago and are not fetched in this round."""
    ship_logs: bool = False
    """Upload the waiting forecast logs."""


class Listed(msgspec.Struct, frozen=True, tag="listed"):
    """The store's list of pointers."""

    champions: list[str]
    waiting: list[str]
    """Identifiers with runs, but no champion yet."""


class Fetched(msgspec.Struct, frozen=True, tag="fetched"):
    """An identifier's promoted bundle is in the cache, complete and verified."""

    identifier: str
    folder: str


class Removed(msgspec.Struct, frozen=True, tag="removed"):
    """An identifier of ``only`` has no pointer."""

    identifier: str
    waiting: bool
    """Whether it has runs, which may promote a model. Without runs it is unknown or was deleted."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """An identifier's bundle could not be fetched."""

    identifier: str
    code: str
    reason: str


class Shipped(msgspec.Struct, frozen=True, tag="shipped"):
    """Forecast logs were uploaded."""

    objects: int


class Away(msgspec.Struct, frozen=True, tag="away"):
    """The store does not answer."""

    kind: Literal["pointers", "logs"]
    reason: str


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The round has ended."""

    lasts: bool
    """Whether the child waits for another order; if not, it ends now."""


Fact = Listed | Fetched | Removed | Failed | Shipped | Away | Done

encode_order = msgspec.json.Encoder().encode
decode_order = msgspec.json.Decoder(Order).decode
encode_fact = msgspec.json.Encoder().encode
decode_fact = msgspec.json.Decoder(Fact).decode
