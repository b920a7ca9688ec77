"""Networks, their training and their export: pure code without messages and store."""
