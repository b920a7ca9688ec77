"""Scores every trained candidate on the same held-out rows, gates, and promotes the best."""
