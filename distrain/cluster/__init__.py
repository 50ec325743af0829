"""Which processes there are, whether they live, and whether they agree."""
