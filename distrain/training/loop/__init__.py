"""Epochs of steps, and what happens after a step and after an epoch."""
