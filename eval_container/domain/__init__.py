"""Pure functions and values: scores, the gate, the choice, waiting times."""
