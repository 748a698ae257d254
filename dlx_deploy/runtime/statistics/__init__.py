"""Verdicts with confidence: drops in accuracy, floors, timings."""
