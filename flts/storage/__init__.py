"""The object store: one port, an adapter for S3, an adapter for a folder, and the layout of the buckets."""
