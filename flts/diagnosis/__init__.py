"""Diagnosis of the backends, step by step from the user's machine: the first step that fails, and its remedy."""
