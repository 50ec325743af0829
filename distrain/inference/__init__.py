"""Evaluates a finished run, and predicts with its best model."""
