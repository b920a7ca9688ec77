"""Backends looked at step by step, from where a person stands: what fails first, and what to do about it."""
