"""Keras on TensorFlow: its start, and every private name of both libraries that distrain uses."""
