"""Which networks there are, by name, without torch: for checks that must take milliseconds."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

__all__ = ["CIFAR", "HF", "TIMM", "USER", "VIT", "for_texts", "image_models", "nearest_function", "text_models"]

CIFAR = ("resnet8", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
VIT = "vit"
TIMM, HF, USER = "timm:", "hf:", ".py:"
"""What names of networks from these collections begin with, and what is in that of a user's own function."""
_TEXT = ("efficient_transformer", "transformer")
_REGISTERED = re.compile(r"^@register_model\((?:name=)?(?:\"(\w+)\")?\)\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)


def text_models() -> tuple[str, ...]:
    """The networks for texts that have a name of their own, sorted."""
    return _TEXT


def image_models() -> tuple[str, ...]:
    """The networks for images that have a name, sorted; empty where torchvision's cannot be listed.

    Those are read off its source, as importing it would import torch.
    """
    found = importlib.util.find_spec("torchvision")
    folder = Path(found.origin).parent / "models" if found is not None and found.origin else None
    if folder is None or not folder.is_dir():
        return ()
    names = [
        given or function
        for path in folder.glob("*.py")
        for given, function in _REGISTERED.findall(path.read_text(encoding="utf-8", errors="replace"))
    ]
    return tuple(sorted({*CIFAR, VIT, *names})) if names else ()


def for_texts(model: str) -> bool | None:
    """Whether ``model`` reads texts; ``None`` where its name does not say."""
    if USER in model:
        return None
    return model in _TEXT or model.startswith(HF)


def nearest_function(path: Path, function: str) -> Sequence[str] | None:
    """The names that the file ``path`` binds, if ``function`` is none of them; ``None`` where it may be there.

    Raises:
        SyntaxError: the file is not Python. OSError: it cannot be read.
    """
    tree = ast.parse(path.read_bytes(), str(path))
    bound: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            bound |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
    dynamic = {"globals", "setattr", "exec", "vars"} & {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    if function in bound or "*" in bound or dynamic:
        return None
    return sorted(node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)))
