"""Quantization-aware training of an exported graph: the same nodes and names in torch, and scales that learn."""
