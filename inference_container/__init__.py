"""Inference serves the champions' forecasts over HTTP, and forecasts each run's test rows in batch."""
