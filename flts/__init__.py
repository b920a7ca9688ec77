"""The library that all services share: contracts, message delivery, storage and forecasting. It imports no service."""

__version__ = "0.1.0"
