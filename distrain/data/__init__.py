"""Rows on disk or in memory to the batches of a step: plan, order, shards, loader."""
