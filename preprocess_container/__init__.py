"""Preprocess turns an upload into a data set: cleaned, on a regular grid, and split."""
