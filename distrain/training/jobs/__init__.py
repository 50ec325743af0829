"""What a run trains: model, data and arguments, equal on all ranks."""
