"""What pages of docs/ show: their blocks, and an installed package made of them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCS = Path(__file__).parents[2] / "docs"


def block(page: str, language: str, text: str) -> str:
    """The one block of the page in ``language`` that holds ``text``."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.M | re.S)
    (only,) = (body for kind, body in blocks if kind == language and text in body)
    return str(only)


@contextmanager
def installed_package(name: str, version: str, page: str, modules: Mapping[str, str], folder: Path) -> Iterator[Path]:
    """A folder of installed packages that holds the page's, as an installer leaves it; on ``sys.path`` while it lasts.

    ``modules``: the name of a module and what is in the one Python block that it is. Its entry points are those of the
    page's TOML.
    """
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True)
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(block(page, "python", text))
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    offered = tomllib.loads(block(page, "toml", "entry-points"))["project"]["entry-points"]
    lines = [
        line for group, names in offered.items() for line in (f"[{group}]", *(f"{n} = {v}" for n, v in names.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder
    for module in modules:
        sys.modules.pop(module, None)
