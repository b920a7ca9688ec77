"""The object store: port, adapters for S3 and for a folder, the keys of all objects, and the records of runs."""
