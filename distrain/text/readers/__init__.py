"""Records from files of text."""
