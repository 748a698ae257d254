"""Memory that was freed and that the C library keeps for later."""

from __future__ import annotations

import ctypes

__all__ = ["release_freed"]


def release_freed() -> None:
    """Give it back to the system, where there is a way (glibc): a step should not pay for what another one needed."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return
    trim(0)
