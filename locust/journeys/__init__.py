"""The users of the load test, one kind of user per module."""
