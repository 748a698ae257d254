from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

from dlx_deploy.pipeline.allocator import release_freed

BLOCK, COUNT = 64 << 10, 1600
"""100 MiB of blocks that the C library takes from its heap, not each from the system."""


def resident_mib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library's heap is looked at on Linux")
def test_what_was_freed_goes_back_to_the_system() -> None:
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim"):
        pytest.skip("no glibc: nothing can be given back")
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    blocks = [library.malloc(BLOCK) for _ in range(COUNT)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK)
    for block in blocks[:-1]:  # the last one keeps the heap from shrinking by itself
        library.free(block)
    before = resident_mib()
    release_freed()
    library.free(blocks[-1])
    assert before - resident_mib() > 80


def test_where_the_c_library_has_no_way_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    release_freed()
