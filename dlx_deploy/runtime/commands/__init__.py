"""What the package does when it is asked: predict, selftest, bench, verify, engine, inspect."""
