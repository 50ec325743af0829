"""Made-up text of any size."""
