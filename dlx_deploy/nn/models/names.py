"""Whether a name can be that of a network for the data, without torch: for checks that must take milliseconds."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path

from dlx_deploy.config.strict import nearest
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.families import HF, TIMM, Reads, examples, family_of, is_user, model_names, unlisted
from dlx_deploy.plugins import provider

__all__ = ["check_collection", "check_known", "check_name"]

_NEAR = 3
"""So many names are offered where one is unknown."""


def check_known(option: str, model: str) -> None:
    """Nothing, if ``model``, as ``option`` gives it, may name a network, whatever that reads and gives.

    Whether a collection has it is seen when it is asked.

    Raises:
        ConfigError: it is unknown; names the nearest.
    """
    if is_user(model) or family_of(model) is not None or unlisted() or provider("model", model):
        return
    raise ConfigError(
        f"{option} {model}: no network has that name; {nearest(model, model_names(), _NEAR)}; others are timm:NAME, "
        "hf:NAME, FILE.py:FUNCTION, FILE.onnx and FILE.pt2"
    )


def check_collection(model: str) -> None:
    """Nothing, if the collection that ``model`` is of has it; timm takes seconds to ask.

    Raises:
        ConfigError: it has not. EnvironmentMissing: it is not installed.
    """
    if model.startswith(TIMM):
        from dlx_deploy.nn.models.external import check_timm

        check_timm(model.removeprefix(TIMM))


def check_name(section: str, model: str, reads: Reads, gives: str, files: Mapping[str, Path]) -> None:
    """Nothing, if ``model``, as ``section`` names it, can be a network that reads and gives what the data ask for.

    What a function of the user's or of another package gives is seen when it is built.

    ``files``: the user's own, by the names of inputs.

    Raises:
        ConfigError: it is unknown, for other data or other answers, or a user's file without that function.
    """
    if is_user(model):
        _check_user(section, model, files["source"])
        return
    family = family_of(model, reads)
    if family is None:
        _check_unlisted(section, model, reads, gives)
        return
    if (family.reads, family.gives) != (reads, gives):
        kind = f"is for {family.reads}, and the data are {reads}"
        if family.reads == reads:
            kind = f"gives {family.gives}, and the data ask for {gives}"
        offered = "".join(f"{name!r}, " for name in examples(reads, gives))
        instance = f"for instance to {offered.removesuffix(', ')} or" if offered else "to"
        raise ConfigError(f"model {model!r} {kind}; set {section}.model {instance} 'FILE.py:FUNCTION'")
    if family.prefix == HF and "source" not in files:
        _check_folder(section, model.removeprefix(HF))


def _check_unlisted(section: str, model: str, reads: Reads, gives: str) -> None:
    if unlisted(reads, gives) or provider("model", model):
        return  # whoever builds it knows
    known = model_names(reads, gives)
    hint = f"{nearest(model, known)}; it is one of these, " if known else ""
    others = "".join(f"{name!r} or " for name in examples(reads, gives, collections=True))
    raise ConfigError(f"{section}.model is {model!r}, unknown; {hint}{others}'FILE.py:FUNCTION'")


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
