"""Packages that serve: many callers before one model, and HTTP by the KServe v2 inference protocol."""
