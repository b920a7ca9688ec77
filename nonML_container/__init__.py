"""Turns a data set into a tracked Prophet model of every varying target."""
