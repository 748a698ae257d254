"""What a user's Python file imports from its own folder: known before it is run, and nothing else is found then.

Keys hold the content of a file, so of its folder only what can be named without running it may be imported: modules
``NAME.py`` and packages that an ``import`` statement names, in the file or in what it imports so. Nothing heavy is
imported here.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import json
import sys
import types
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions, packages_distributions
from importlib.util import find_spec
from pathlib import Path

__all__ = ["executed", "found_beside", "modules_beside", "sources_of"]

_LARGEST = 1 << 20
"""Bytes of a file; a larger one is not looked into for what it imports."""
_PACKAGE = "/__init__.py"
_NEVER = ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'")
"""What is not so where a file is run as a module: what stands behind it is for checkers, or for who starts the file."""


def modules_beside(file: Path) -> list[str]:
    """The files of modules in ``file``'s folder that it imports, or that these import: ``helper.py``. Sorted.

    Modules of Python's own library are taken from there. Of a file that cannot be read or is no Python: none.
    """
    return [name for name in _neighbours(file) if not name.endswith(_PACKAGE)]


def found_beside(file: Path) -> list[str]:
    """The modules and packages (``name/__init__.py``) in ``file``'s folder that it imports so and that Python would
    find there or nowhere: not what is installed, elsewhere or in place (``pip install -e .``)."""
    folder = file.parent.resolve()
    places = {name: place for name in _neighbours(file) if (place := _place(name)) in (None, folder)}
    installed = packages_distributions() if places else {}
    found = [name for name in places if _module_of(name) not in installed]
    if found and folder in _in_place():  # then Python finds there what it finds, whatever the distribution lists
        return [name for name in found if places[name] is None]
    return found


def sources_of(file: Path) -> dict[str, bytes]:
    """Name → content of the ``file`` and of the modules beside it.

    Raises:
        OSError: one cannot be read.
    """
    return {name: (file.parent / name).read_bytes() for name in (file.name, *modules_beside(file))}


def executed(file: Path, sources: Mapping[str, bytes], prefix: str) -> types.ModuleType:
    """The ``file`` as a module that was run; of its folder it finds modules in ``sources`` (``sources_of``), first.

    Not by the import system, which would leave ``__pycache__`` in the folder and might read an old one, and which knows
    one module of a name: names here begin with ``prefix`` and a digest of all ``sources``.

    Raises:
        Exception: whatever the user's code raises.
    """
    digest = hashlib.sha256(sources[file.name])
    for name in sorted(sources.keys() - {file.name}):
        digest.update(f"\0{name}\0{len(sources[name])}\0".encode() + sources[name])
    return _Folder(file.parent, sources, f"{prefix}{digest.hexdigest()[:16]}", file.name).run(file.name)


class _Folder:
    """The modules of a folder that may be imported, as they are run, each once."""

    def __init__(self, folder: Path, sources: Mapping[str, bytes], prefix: str, first: str) -> None:
        self._folder, self._sources, self._prefix, self._first = folder, sources, prefix, first
        self._modules: dict[str, types.ModuleType] = {}
        self._builtins = {**vars(builtins), "__import__": self._import}

    def run(self, name: str) -> types.ModuleType:
        """The module in the file ``name``, run if it was not."""
        if name in self._modules:
            return self._modules[name]
        called = self._prefix if name == self._first else f"{self._prefix}_{name[:-3]}"
        module = types.ModuleType(called)
        path = str(self._folder / name)
        module.__file__ = path
        if len(self._sources) > 1:
            module.__dict__["__builtins__"] = self._builtins
        sys.modules[called] = self._modules[name] = module  # dataclasses and pickling look their module up
        try:
            exec(compile(self._sources[name], path, "exec", dont_inherit=True), module.__dict__)
        except BaseException:
            del self._modules[name]
            sys.modules.pop(called, None)
            raise
        return module

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,  # as Python calls them
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> types.ModuleType:
        """``__import__`` of the modules in the folder."""
        if level == 0 and f"{name}.py" in self._sources:
            return self.run(f"{name}.py")
        return builtins.__import__(name, globals, locals, fromlist or (), level)


def _neighbours(file: Path) -> list[str]:
    found: dict[str, None] = {}
    waiting = [file]
    while waiting:
        for name in _imported(waiting.pop()):
            beside = _beside(file.parent, name)
            if beside and beside not in found and beside != file.name:
                found[beside] = None
                waiting += [] if beside.endswith(_PACKAGE) else [file.parent / beside]
    return sorted(found)


def _imported(file: Path) -> list[str]:
    """The first parts of the names that ``import`` statements of ``file`` say, wherever they may run in it."""
    try:
        if file.stat().st_size > _LARGEST:
            return []
        parsed = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []  # who runs it says so
    names: list[str] = []
    parts: list[ast.AST] = [parsed]
    while parts:
        node = parts.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in _NEVER:
            parts += node.orelse
            continue
        parts += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # ``from . import a``: it fails where it is run, in a file that is of no package.
            names += [node.module] if node.module and not node.level else []
    return [name.partition(".")[0] for name in names]


def _beside(folder: Path, name: str) -> str:
    """The file of ``folder`` that the module ``name`` is in; "": it is not there, or Python's own."""
    if name in sys.stdlib_module_names:
        return ""
    for file in (f"{name}{_PACKAGE}", f"{name}.py"):
        if (folder / file).is_file():
            return file
    # A folder of modules is a package without that file too, which Python finds where the folder above is on its path.
    return f"{name}{_PACKAGE}" if any((folder / name).glob("*.py")) else ""


def _module_of(neighbour: str) -> str:
    return neighbour.removesuffix(_PACKAGE).removesuffix(".py")


def _place(neighbour: str) -> Path | None:
    """The folder in which Python would find the module or package of that file."""
    try:
        spec = find_spec(_module_of(neighbour))
    except (ImportError, ValueError):  # an import of its parent fails, or a module has no spec
        return None
    if spec is None or not spec.origin:
        return None
    path = Path(spec.origin)  # a link that an installation in place made is where it lies
    return (path.parent.parent if path.name == "__init__.py" else path.parent).resolve()


def _in_place() -> set[Path]:
    """The folders that distributions which are installed in place put on Python's path, as hatch, flit and poetry do:
    in a file ``.pth`` of theirs; no list says which modules are in there."""
    found: set[Path] = set()
    for one in distributions():
        if not _is_editable(one.read_text("direct_url.json") or ""):
            continue
        for listed in one.files or ():
            if listed.suffix != ".pth":
                continue
            path = Path(str(one.locate_file(listed)))
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
            found |= {(path.parent / line.strip()).resolve() for line in lines if line.strip() and not _runs(line)}
    return found


def _is_editable(direct_url: str) -> bool:
    try:
        return bool(json.loads(direct_url)["dir_info"]["editable"])
    except (ValueError, KeyError, TypeError):
        return False


def _runs(line: str) -> bool:
    """Whether a line of ``.pth`` is a statement, or a comment, and no folder."""
    return line.startswith(("import ", "import\t", "#"))
