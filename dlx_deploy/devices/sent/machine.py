"""What a timing on a board rests on: its processor, its board, its power mode, and the versions of what runs there."""

import platform
from typing import Any, Dict

__all__ = ["main"]

MOST = 1 << 20
DISTRIBUTIONS = ("numpy", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx")


def main(argument: Dict[str, Any]) -> Dict[str, Any]:
    """Texts of files as they are, empty where there is none, and versions by distribution."""
    versions = {"python": platform.python_version()}
    try:
        from importlib import metadata
    except ImportError:  # a Python before 3.8
        return {**texts(argument), "machine": platform.machine(), "versions": versions}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = str(metadata.version(name))
        except metadata.PackageNotFoundError:
            continue
    return {**texts(argument), "machine": platform.machine(), "versions": versions}


def texts(argument: Dict[str, Any]) -> Dict[str, Any]:
    """What stands in the files that the argument names."""
    read = {}
    for key, path in argument["files"].items():
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                read[key] = stream.read(MOST).strip("\0\n ")
        except OSError:
            read[key] = ""
    return {"texts": read}
