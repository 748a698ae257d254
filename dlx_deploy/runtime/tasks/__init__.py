"""Tasks: what a network reads and what its answers mean, a file for each, found by name through ``table``."""
