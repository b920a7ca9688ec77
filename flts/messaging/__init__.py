"""Kafka: the one consume loop, its child processes and its publisher."""
