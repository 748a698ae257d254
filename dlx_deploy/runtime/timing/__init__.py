"""How fast something is, measured so that a gate can rest on it."""
