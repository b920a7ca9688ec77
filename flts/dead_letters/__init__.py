"""Dead letters: list, count and replay them, and account for every record of a topic."""
