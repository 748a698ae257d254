"""Packages that serve: what stands between many callers and one model."""
