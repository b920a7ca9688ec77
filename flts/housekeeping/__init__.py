"""Removal from the store: old runs by the janitor, and data sets that a person deletes."""
