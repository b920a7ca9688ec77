"""The users of the load test, one journey per file."""
