"""What is in a run directory, and who may go on."""
