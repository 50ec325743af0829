"""What is shown and logged."""
