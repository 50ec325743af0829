"""Text and arrays in, batches out: sources, vectorizers, shards, the plan."""
