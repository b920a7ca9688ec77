"""Dead letters: reading and counting them, sending them again, and the sum of all messages."""
