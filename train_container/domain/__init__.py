"""Networks, their training and their export: pure code that knows no message and no store."""
