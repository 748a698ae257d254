"""What a package promises of its graph, held against what it does: rows alone and in batches, last bits; no torch."""
