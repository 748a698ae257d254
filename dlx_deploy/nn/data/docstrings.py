"""A small real text set that ships inside packages which are installed anyway: whose docstring is this?

The first paragraphs of docstrings of public names in public folders of numpy, scikit-learn and torch, read from their
sources without importing them. The packages' own names are taken out, so that the language has to tell them apart.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import util
from pathlib import Path

from dlx_deploy.errors import DataError

__all__ = ["CLASSES", "load_docstrings"]

CLASSES = ("numpy", "sklearn", "torch")
PER_CLASS = 1500
SHORTEST, LONGEST = 20, 400  # characters
_NAMES = re.compile(r"\b(?:numpy|np|scikit-learn|sklearn|pytorch|torch)\b\.?", re.IGNORECASE)
_LEFT_OUT = re.compile(r"(?:^|/)(?:_[^/]*|tests?|testing|externals)/")
_PARSED = 40_000
"""Characters of a file: larger ones are tables, not code."""


def load_docstrings() -> tuple[list[str], list[str]]:
    """Texts and their classes, the same number of each class, none twice.

    Raises:
        DataError: one of the packages is not installed with its sources.
    """
    paragraphs = {name: _of_package(name) for name in CLASSES}
    shared = {text for name in CLASSES for text in paragraphs[name] if sum(text in paragraphs[n] for n in CLASSES) > 1}
    own = {name: [text for text in paragraphs[name] if text not in shared] for name in CLASSES}
    count = min(PER_CLASS, *(len(texts) for texts in own.values()))
    pairs = [(text, name) for name in CLASSES for text in _spread(own[name], count)]
    return [text for text, _ in pairs], [name for _, name in pairs]


def _of_package(name: str) -> dict[str, None]:
    """The package's paragraphs, in the order of its files; a dict for its order and quick search."""
    spec = util.find_spec(name)
    root = Path(spec.origin).parent if spec and spec.origin else None
    if root is None:
        raise DataError(f"data.kind 'docstrings' reads the sources of {name}, which is not installed; pip install it")
    paths = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.py"))
    paragraphs: dict[str, None] = {}
    for path in paths:
        if not _LEFT_OUT.search(path):
            paragraphs.update(dict.fromkeys(_paragraphs(root / path)))
    if not paragraphs:
        raise DataError(
            f"data.kind 'docstrings' finds no sources of {name} in {root}; pip install it with its .py files"
        )
    return paragraphs


def _paragraphs(path: Path) -> Iterator[str]:
    source = path.read_text(encoding="utf-8", errors="replace")
    if '"""' not in source or len(source) > _PARSED * 4:
        return
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            text = _clean(ast.get_docstring(node) or "")
            if SHORTEST <= len(text) <= LONGEST:
                yield text


def _clean(docstring: str) -> str:
    """The first paragraph on one line, without the packages' names."""
    paragraph = docstring.strip().split("\n\n")[0]
    return " ".join(_NAMES.sub("", paragraph).split())


def _spread(texts: list[str], count: int) -> list[str]:
    """``count`` of ``texts`` at even distances, so that all of a package is there."""
    return [texts[i * len(texts) // count] for i in range(count)]
