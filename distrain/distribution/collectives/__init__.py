"""How tensors are summed over processes."""
