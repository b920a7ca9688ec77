"""Eval scores all candidates on the same held-out rows, applies the gate, and promotes the best."""
