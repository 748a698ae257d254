"""Which networks there are, by name, without torch: for checks that must take milliseconds."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from dlx_deploy.config.strict import nearest
from dlx_deploy.errors import ConfigError
from dlx_deploy.plugins import provider

__all__ = ["CIFAR", "HF", "OWN", "TIMM", "USER", "VIT", "Reads", "check_name", "image_models", "text_models"]

Reads = Literal["images", "texts"]
"""What a network reads."""

CIFAR = ("resnet8", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
VIT = "vit"
TIMM, HF, USER = "timm:", "hf:", ".py:"
"""What names of networks from these collections begin with, and what is in that of a user's own function."""
_TEXT = ("efficient_transformer", "transformer")
OWN = (*CIFAR, VIT, *_TEXT)
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


def check_name(section: str, model: str, reads: Reads, files: Mapping[str, Path]) -> None:
    """Nothing, if ``model``, as ``section`` names it, can be a network that reads such data.

    ``files``: the user's own, by the names of inputs.

    Raises:
        ConfigError: it is unknown, for other data, or a user's file without that function.
    """
    texts = reads == "texts"
    if USER in model:
        _check_user(section, model, files["source"])
        return
    if model.startswith(HF) and "source" not in files:
        _check_folder(section, model.removeprefix(HF))
    if _for_texts(model) is texts and model.startswith((HF, TIMM)):
        return
    if _for_texts(model) and not texts:
        raise ConfigError(
            f"model {model!r} is for texts, and the data are images; set {section}.model for instance to 'resnet20', "
            "'mobilenet_v3_small', 'timm:NAME' or 'FILE.py:FUNCTION'"
        )
    if not texts and model in (*CIFAR, VIT):
        return  # without reading torchvision's source
    known = text_models() if texts else image_models()
    if known and model not in known and not provider("model", model):
        unknown = "no network for texts" if texts else "unknown"
        others = "'hf:NAME_OR_PATH'" if texts else "'timm:NAME'"
        raise ConfigError(
            f"{section}.model is {model!r}, {unknown}; {nearest(model, known)}; it is one of these, {others} or "
            "'FILE.py:FUNCTION'"
        )


def _check_user(section: str, model: str, path: Path) -> None:
    function = model.rpartition(":")[2]
    try:
        others = _nearest_function(path, function)
    except (SyntaxError, ValueError) as e:
        raise ConfigError(f"{section}.model is {model!r}, and {path} is no Python: {e}; correct it") from e
    except OSError as e:
        raise ConfigError(f"{section}.model is {model!r}, and {path} cannot be read ({e.strerror})") from e
    if others is not None:
        hint = nearest(function, others) if others else "the file defines no function"
        raise ConfigError(f"{section}.model is {model!r}: {path} has no function {function!r}; {hint}")


def _check_folder(section: str, name: str) -> None:
    """A name on the hub is NAME or OWNER/NAME; whatever else looks like a path is one, and is not here."""
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name:
        raise ConfigError(
            f"{section}.model is 'hf:{name}', and there is no such folder; give one with config.json, or a name on the "
            "hub"
        )


def _for_texts(model: str) -> bool | None:
    """Whether ``model`` reads texts; ``None`` where its name does not say."""
    if USER in model:
        return None
    return model in _TEXT or model.startswith(HF)


def _nearest_function(path: Path, function: str) -> Sequence[str] | None:
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
