"""The record of runs and models in MLflow: never the path, always bounded in time, whole in the end."""
