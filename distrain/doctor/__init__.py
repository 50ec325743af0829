"""What of this machine would stop or slow a run, and the cure of each fault."""
