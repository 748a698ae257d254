"""SHA-256, by Python's own code where bytes are few: OpenSSL, which ``hashlib`` loads, is much faster with many.

Loading it takes as long as digesting a small package without it, and 3.6 MiB.
"""

from __future__ import annotations

import sys
from importlib import import_module

__all__ = ["sha256", "sha256_hex"]

MANY = 1024**2  # bytes, from which on OpenSSL pays
BUILT_IN = "_sha2" if sys.version_info >= (3, 12) else "_sha256"


def sha256(data: bytes) -> bytes:
    """The digest of ``data``, 32 bytes."""
    return bytes(_digest(data).digest())


def sha256_hex(data: bytes) -> str:
    """The digest of ``data`` in hexadecimal."""
    return str(_digest(data).hexdigest())


try:
    _own = import_module(BUILT_IN).sha256
except ImportError:  # a Python that was built without, for FIPS 140
    from hashlib import sha256 as _own


def _digest(data: bytes):  # type: ignore[no-untyped-def]  # either kind
    if len(data) < MANY and "hashlib" not in sys.modules:
        return _own(data)
    import hashlib

    return hashlib.sha256(data)
