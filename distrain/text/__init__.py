"""Text files to rows, once."""
