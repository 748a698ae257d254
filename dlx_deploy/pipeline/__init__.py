"""Stages, keys, store, plan, run loop, manifest. Knows no stage by name; standard library and msgspec only."""
