"""Worker processes that read examples and apply `map`: their pool, messages and entry."""
