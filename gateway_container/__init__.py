"""The gateway: the HTTP API, uploads, a page for people, and the live state of every run."""
