"""Logs, metrics, traces and health checks, the same in every service."""
