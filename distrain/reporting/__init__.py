"""Shows and logs a run, and reads the log back."""
