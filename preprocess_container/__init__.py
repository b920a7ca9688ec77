"""Turns a raw upload into a clean, regular, split data set."""
