"""Labelled text to a data set on disk."""
