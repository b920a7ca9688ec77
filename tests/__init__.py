"""The tests; shared code of theirs is imported as ``tests.<module>``."""
