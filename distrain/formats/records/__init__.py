"""Records one after the other in large files: TFRecord and tar shards, each with an index."""
