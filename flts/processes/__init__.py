"""Child processes: bounded work on untrusted input, and long work beside a consumer that must keep polling."""
