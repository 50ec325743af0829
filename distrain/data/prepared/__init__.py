"""Prepared text on disk: the index of a data set, its shards and their rows."""
