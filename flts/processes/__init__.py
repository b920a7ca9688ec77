"""Child processes: for bounded work on untrusted input, and for long work while the consume loop polls."""
