"""The package as a file and as values: archive, fields, what may be in it."""
