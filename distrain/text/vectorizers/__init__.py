"""Records to rows of numbers."""
