"""The shared library of FLTS: contracts, delivery, storage and the numbers; it knows no service."""

__version__ = "0.1.0"
