"""A small package's files, and zips of them as the writer and as anybody else makes them."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from typing import Any

import pytest

from dlx_deploy.runtime.package import archive
from dlx_deploy.runtime.package.archive import write_archive


def indexed(files: Mapping[str, bytes], **changes: Any) -> dict[str, bytes]:
    """``files`` with a ``package.json`` that lists them."""
    listed = {n: {"sha256": hashlib.sha256(d).hexdigest(), "size": len(d)} for n, d in files.items()}
    return {**files, "package.json": archive.to_json({"schema": 1, "files": listed, **changes})}


def zipped(members: list[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as f:
        for name, data in members:
            f.writestr(name, data)
    return buffer.getvalue()


FILES = indexed({"model.onnx": bytes(range(256)) * 2, "dlx_runtime/main.py": b"print()\n" * 9, "empty": b""})


def written(deflate: bool = False, files: Mapping[str, bytes] = FILES) -> bytes:
    buffer: dict[str, bytes] = {}

    def keep(path: str, data: bytes, mode: int) -> None:
        buffer["data"] = data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "write_atomically", keep)
        write_archive("x.dlx", files, deflate)
    return buffer["data"]


STORED, DEFLATED = written(), written(deflate=True)
