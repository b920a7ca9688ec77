"""GRU and LSTM that forecast all steps of the horizon at once: a correction of LINEAR, and segments of the series."""
