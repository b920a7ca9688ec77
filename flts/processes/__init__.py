"""Child processes: bounded work on what strangers send, and long work that must not stop a consumer."""
