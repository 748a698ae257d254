"""What a package takes: files and texts as the arrays that a model reads."""
