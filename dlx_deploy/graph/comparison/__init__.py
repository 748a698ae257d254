"""A compressed graph beside the one in floating point that it was made of: layer by layer; no torch."""
