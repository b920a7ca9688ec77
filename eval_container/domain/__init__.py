"""Pure functions and values: what a score is, who may be promoted, how long to wait, what may be removed."""
