"""What several stages share, and what is too much for the file of the one that needs it."""
