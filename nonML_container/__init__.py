"""Trainers of models that are not neural networks, such as Prophet."""
