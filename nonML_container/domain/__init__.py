"""Fits of models that are not networks: pure code without messages and store."""
