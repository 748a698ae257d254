"""A user's own metric as it is named, ``FILE.py:FUNCTION``, and what its file says before it is run.

The file is one Python file, whose content is in the keys of what rests on it. It may say ``RESAMPLES = 1000``: how many
resamples its bounds rest on where it is slow. Nothing heavy is imported here.
"""

from __future__ import annotations

import ast
import symtable
from pathlib import Path

from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.tasks.metric_names import is_user_metric_name

__all__ = ["FEWEST", "MOST", "check_file", "is_user_metric", "split_metric", "without_folder"]

MOST = 4000
"""Resamples, as those of other metrics (``runtime.statistics.bootstrap``, which needs numpy)."""
FEWEST = 400
"""Resamples: four of them lie above a bound at 0.99."""
_MARK = ".py:"
_LARGEST = 1 << 20  # bytes


def is_user_metric(metric: str) -> bool:
    """Whether ``gate.metric`` names a file."""
    return _MARK in metric


def split_metric(metric: str) -> tuple[Path, str]:
    """File and function of a user's ``metric``.

    Raises:
        ConfigError: one is missing, or has a name that none can have.
    """
    path, _, function = metric.rpartition(":")
    file = Path(path)
    if not is_user_metric_name(f"{file.name}:{function}"):
        raise ConfigError(
            f"gate.metric is {metric!r}; must be 'FILE.py:FUNCTION', a file called by letters, digits and . _ + - and "
            "a function in it"
        )
    return file, function


def without_folder(metric: str) -> str:
    """The ``metric`` as keys and packages know it; others than a user's as they are."""
    if not is_user_metric(metric):
        return metric
    file, function = split_metric(metric)
    return f"{file.name}:{function}"


def check_file(file: Path, function: str) -> int:
    """How many resamples the ``file`` asks for, once it is seen to have such a ``function``; it is not run.

    Raises:
        ConfigError: it cannot be read, or has none.
    """
    text = _read(file)
    try:
        names = symtable.symtable(text, str(file), "exec")
        parsed = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as e:
        raise ConfigError(f"gate.metric: {file} is no Python ({e}); mend it") from e
    if function not in names.get_identifiers() or not _is_bound(names.lookup(function)):
        raise ConfigError(f"gate.metric: {file} has no function {function!r}; define it there, or name another")
    return _resamples(file, parsed)


def _is_bound(name: symtable.Symbol) -> bool:
    return name.is_assigned() or name.is_imported() or name.is_namespace()


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > _LARGEST:
            raise ConfigError(f"gate.metric: {file} has over {_LARGEST} bytes; a metric is a small Python file")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as e:
        raise ConfigError(f"gate.metric: {file} cannot be read ({e}); name a Python file, 'FILE.py:FUNCTION'") from e


def _resamples(file: Path, parsed: ast.Module) -> int:
    """What ``RESAMPLES = N`` in the file says, or as many as other metrics have.

    Raises:
        ConfigError: it says no number in range.
    """
    given = [node.value for node in _assignments(parsed) if "RESAMPLES" in _assigned(node)]
    if not given:
        return MOST
    value = given[-1]  # as Python has it
    count = value.value if isinstance(value, ast.Constant) else None
    if type(count) is not int or not FEWEST <= count <= MOST:
        raise ConfigError(
            f"gate.metric: RESAMPLES in {file} is {ast.unparse(value) if value else 'not set'}; must be a number "
            f"written out, {FEWEST} to {MOST}"
        )
    return count


def _assignments(parsed: ast.Module) -> list[ast.Assign | ast.AnnAssign]:
    return [node for node in parsed.body if isinstance(node, (ast.Assign, ast.AnnAssign))]


def _assigned(node: ast.Assign | ast.AnnAssign) -> list[str]:
    """The names that a statement gives a value to."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]
