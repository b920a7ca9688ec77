"""Turns a data set into a tracked neural model: GRU, LSTM or what else is registered, told apart by ``MODEL_TYPE``."""
