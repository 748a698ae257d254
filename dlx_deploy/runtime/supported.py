"""What a package runs on, in one place: the runtime, the packaging, the documentation and the tests read it here."""

from __future__ import annotations

import re
from typing import Optional, Tuple

from .errors import BackendMissing

__all__ = ["MATRIX", "ONNXRUNTIME", "PYTHON", "check_onnxruntime"]

PYTHON = (3, 8)
"""The oldest Python."""
ONNXRUNTIME = ((1, 17), (1, 32))
"""The oldest ONNX Runtime, without which nothing runs, and the newest that was tested."""
MATRIX = (("3.8", "1.17"), ("3.8", "1.19"), ("3.10", "1.23"), ("3.11", "1.32"))
"""Python and ONNX Runtime on which packages are run by ``pytest -m matrix``: the oldest pair, the newest ONNX Runtime
that each of JetPack's Pythons can install, and the newest pair (there the Python is the newest that is here)."""


def check_onnxruntime(version: str) -> Optional[str]:
    """A word of warning where ONNX Runtime ``version`` is newer than those tested.

    Raises:
        BackendMissing: it is older than the oldest that packages are tested with.
    """
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if not numbers:
        return None
    seen: Tuple[int, int] = (int(numbers[1]), int(numbers[2]))
    oldest, newest = ONNXRUNTIME
    if seen < oldest:
        raise BackendMissing(
            f"onnxruntime {version} is older than {_text(oldest)}, the oldest that packages are tested with; "
            f"install a newer one: pip install 'onnxruntime>={_text(oldest)}'"
        )
    if seen > newest:
        return (
            f"onnxruntime {version} is newer than {_text(newest)}, the newest that packages are tested with; "
            "the self-test says whether it computes the same"
        )
    return None


def _text(version: Tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
