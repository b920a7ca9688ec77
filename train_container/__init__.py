"""Trainers of neural networks: GRU, LSTM or another registered model type, chosen by ``MODEL_TYPE``."""
