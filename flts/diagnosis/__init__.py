"""Diagnoses the backends step by step from the user's machine; reports the first step that fails, and its remedy."""
