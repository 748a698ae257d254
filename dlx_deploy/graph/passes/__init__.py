"""Passes over a graph, each of which leaves what the network computes."""
