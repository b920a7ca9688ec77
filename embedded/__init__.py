"""The whole pipeline on one machine without Docker: broker, store, MLflow and every service as processes."""
