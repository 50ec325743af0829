"""The shipped models, their layers, and how any model is built and restored."""
