"""Horovod for the TensorFlow of an environment, built from the package index alone."""
