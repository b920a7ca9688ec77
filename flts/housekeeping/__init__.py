"""Removal from the store: the janitor removes old runs, and a deletion removes a data set."""
