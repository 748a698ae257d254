"""Known wrong computations: a table of what runtimes make of some graphs, and what it says of one graph."""
