"""Keras callbacks of a user: which run, when, and with which state."""
