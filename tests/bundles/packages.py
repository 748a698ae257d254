"""Small packages of each task, as files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dlx_deploy.runtime.package.archive import write_archive
from dlx_deploy.runtime.package.contents import PackageContents, assemble
from tests.runtime.conftest import make_images, metadata, tiny_contents
from tests.runtime.tasks.test_semantic_segmentation import contents as mask_contents
from tests.runtime.tasks.test_texts import contents as text_contents

__all__ = ["classes", "masks", "texts", "written"]


def classes(**changes: Any) -> PackageContents:
    """Images uint8[N, 6, 4, 3] of three classes, for a CPU; ``changes`` are of its metadata or its contents."""
    fields = {name: changes.pop(name) for name in list(changes) if name in metadata() or name == "recipe"}
    return tiny_contents(*make_images(12), metadata=metadata(**fields), **changes)


def masks() -> PackageContents:
    """Images uint8[N, 4, 6, 3], three classes for each pixel."""
    return mask_contents(SimpleNamespace(metadata=metadata))


def texts() -> PackageContents:
    """Tokens int32[N, L] of any length, two classes."""
    return text_contents()


def written(folder: Path, contents: PackageContents) -> Path:
    """``contents`` as a file in ``folder``."""
    path = folder / "x.dlx"
    write_archive(path, assemble(contents))
    return path
