"""Turns a data set into a tracked model that is no network: Prophet or what else is registered."""
