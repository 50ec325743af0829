"""Labels: which values are possible, and which weights classes get."""
