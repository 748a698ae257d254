"""The commands of the command line, each a function of what was typed."""
