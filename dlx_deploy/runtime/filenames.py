"""Names of files that more than one module reads or writes. Standard library only."""

from __future__ import annotations

__all__ = [
    "CARD",
    "CSV",
    "DATA_HEADER",
    "DRIFT",
    "IMAGE_SUFFIXES",
    "JSONL",
    "LABELLED_TEXTS",
    "MANIFEST",
    "MODEL",
    "PLAN",
    "SIDECAR",
    "SLICES",
]

MODEL, MANIFEST, CARD = "model.onnx", "manifest.json", "MODEL_CARD.md"
"""Members of a package."""
DRIFT = "drift.json"
"""A member too: what a device holds the field against."""
PLAN, SIDECAR = "engine.plan", "engine.json"
"""A TensorRT engine, in a package's folder ``engine`` and in the cache, and what it was built for."""
DATA_HEADER = "dataset.json"
"""Of a data folder, as a build keeps it."""
SLICES = "slices.json"
"""Beside a data folder: what each test sample has in the columns of ``data.slices``."""
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""The suffixes of image formats that are read, in any case."""
CSV, JSONL = ".csv", ".jsonl"
LABELLED_TEXTS = (CSV, JSONL)
"""The suffixes of labelled texts."""
