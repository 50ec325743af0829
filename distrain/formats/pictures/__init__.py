"""Image folders: which files and labels, and how a picture becomes an array."""
