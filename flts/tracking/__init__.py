"""The record of runs and models in MLflow: calls are bounded, records become complete, no run waits for MLflow."""
