"""Programs for people who work on FLTS: the environment, generated documents, checks."""
