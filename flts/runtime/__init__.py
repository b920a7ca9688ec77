"""Running a service: its description, its connections, its start and its end."""
