"""What differs from task to task, on the build side."""
