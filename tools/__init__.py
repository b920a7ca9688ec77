"""Developer tools: the environment, generated documents, checks."""
