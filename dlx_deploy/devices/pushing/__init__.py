"""A package on a board: whether it fits, how it gets there, and which release is current."""
