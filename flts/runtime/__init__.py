"""Running a service: its connections, its start, its child processes and its end."""
