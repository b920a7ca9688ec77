"""THETA: Theta and damped trend with a season, for short series."""
