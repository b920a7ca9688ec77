"""The tests; test modules import shared code as ``tests.<module>``."""
