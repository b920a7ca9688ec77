"""The gateway: HTTP, uploads and a page for people in; events out, and the state of every run live."""
