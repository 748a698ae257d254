"""Which network a state dict is of, and why it is not of another: by the names and shapes of its tensors."""
