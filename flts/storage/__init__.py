"""The object store: one port, an adapter for S3 and one for a folder, and what is laid out in it."""
