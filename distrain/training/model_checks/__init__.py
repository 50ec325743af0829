"""Checks at the start: whether replicas can train a model exactly."""
