"""Text or arrays to a data set on disk."""
