"""Figures of an evaluation, of all examples and of each class."""
