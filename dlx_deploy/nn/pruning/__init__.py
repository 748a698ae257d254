"""Structured pruning: channels of any network, heads and feed-forward channels of transformers."""
