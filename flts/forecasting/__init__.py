"""Forecasting as pure functions on arrays: no files, no messages, no model libraries."""
