"""What a package that serves says of itself: counters, logs, health and drift."""
