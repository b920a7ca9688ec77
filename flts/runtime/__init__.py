"""Runs a service: its connections to the backends, its start, its child processes and its end."""
