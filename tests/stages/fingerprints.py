"""Fingerprints of the code behind each stage; run it to accept a change: ``python tests/stages/fingerprints.py``.

Before you do: would the changed code give other bytes for the same inputs? Then raise the stage's ``version`` too,
or users keep results of the old code.

Watched is all that a stage's ``STAGE`` reaches by name: imports at the top and inside functions, relative ones, and
strings such as ``"package.module:NAME"``. Which modules are reached is found definition by definition, so that a helper
that a stage never calls does not bring its own imports along. Of ``nn``, ``graph`` and ``runtime``, where the work is
done, the whole file counts; of the rest (the stage's module, configuration, errors, the pipeline) what is reached. A
module that looks for its own files brings its folder along, one that names a table beside it that table. Comments,
docstrings and formatting do not count.

A task is a record of methods for many stages: of those, a stage reaches the ones whose names it uses.
"""

from __future__ import annotations

import ast
import copy
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import dlx_deploy
from dlx_deploy.stages.registry import STAGES, load_stage

PATH = Path(__file__).with_suffix(".json")
PACKAGE = "dlx_deploy"
WHOLE = (f"{PACKAGE}.nn", f"{PACKAGE}.graph", f"{PACKAGE}.runtime", f"{PACKAGE}.tasks")
"""Rooms of which a file that is reached counts as a whole."""
TASKS = f"{PACKAGE}.tasks"
JUDGES = ("check", "rehearse", "bind")
"""What of a stage says whether it runs, and with what: its key holds that; it decides no bytes."""
TEXTS: dict[ast.stmt, str] = {}
EDGES: dict[tuple[ast.stmt, str, frozenset[str]], list[tuple[str, str]]] = {}
"""Statements as text, and what they name, remembered: a module is parsed once."""
IMPORTS = (ast.Import, ast.ImportFrom)

Names = dict[str, list[ast.stmt]]
Edge = tuple[str, str]
"""A module, and what is wanted of it: a top-level name, ``"*"`` for all, ``""`` for what its import does."""


class Module:
    """One source file: what its top level binds, and what it does when it is imported."""

    def __init__(self, name: str, path: Path, text: str) -> None:
        self.name, self.path = name, path
        self.is_package = path.name == "__init__.py"
        self.tree = ast.parse(text)
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Stage":
                node.keywords = [k for k in node.keywords if k.arg not in JUDGES]

    @functools.cached_property
    def bound(self) -> Names:
        """Top-level name → the statements that bind it, those under ``if`` and ``try`` included."""
        names: Names = {}
        for statement in _flat([s for s in self.tree.body if not _is_for_types(s)]):
            for name in _binds(statement):
                names.setdefault(name, []).append(statement)
        return names

    @functools.cached_property
    def effects(self) -> list[ast.stmt]:
        """What runs at import and is no plain definition: calls, patches, functions that a decorator may register."""
        return [s for s in self.tree.body if not isinstance(s, IMPORTS) and not _is_definition(s)]


@functools.cache
def _parsed(name: str, path: Path, text: str) -> Module:
    return Module(name, path, text)


class Code:
    """The package's modules, and what each definition in them reaches.

    ``changed`` (path below ``root`` → text): as if these files held that.
    """

    def __init__(self, root: Path, changed: Mapping[str, str] = MappingProxyType({})) -> None:
        self.root = root
        self._changed = {root / name: text for name, text in changed.items()}
        self._modules: dict[str, Module | None] = {}

    def module(self, name: str) -> Module | None:
        """The module ``name`` of the package; ``None`` for any other."""
        if name not in self._modules:
            self._modules[name] = self._load(name)
        return self._modules[name]

    def reached(self, *roots: Edge) -> dict[str, set[str]]:
        """Module → the top-level names that ``roots`` reach; ``"*"``: all of them."""
        asked: frozenset[str] = frozenset()
        while True:  # what a task's methods use of each other is asked as well
            reached = self._reached(roots, asked)
            more = asked | self._attributes(reached, roots[0][0], asked)
            if more == asked:
                return reached
            asked = more

    def _attributes(self, reached: Mapping[str, set[str]], start: str, asked: frozenset[str]) -> frozenset[str]:
        """The names of attributes that the stages' own code uses, and the code of tasks that it asks."""
        room = start.rpartition(".")[0]
        statements: list[ast.stmt] = []
        for where, names in reached.items():
            if where.startswith((room, TASKS)) and (module := self.module(where)) is not None:
                used = module.tree.body if "*" in names else _chosen(module, names)
                statements += [_asked_of(s, asked) for s in used] if where.startswith(TASKS) else used
        return frozenset(name for s in statements for name in _attribute_names(s))

    def _reached(self, roots: Sequence[Edge], asked: frozenset[str]) -> dict[str, set[str]]:
        reached: dict[str, set[str]] = {}
        todo = [*roots]
        while todo:
            where, wanted = todo.pop()
            module = self.module(where)
            if module is None or wanted in reached.setdefault(where, set()):
                continue
            new = not reached[where]
            reached[where].add(wanted)
            statements = module.tree.body if wanted == "*" else module.bound.get(wanted, [])
            todo += [edge for s in statements for edge in self._cached(module, s, wanted, asked)]
            if new:
                todo += [edge for s in module.effects for edge in self._cached(module, s, "", asked)]
                todo += [(parent, "") for parent in _parents(where)]
        return reached

    def files(self, start: str, name: str, *more: Edge) -> dict[str, str]:
        """Module or file → the digest of what counts of it."""
        parts = {}
        for where, names in sorted(self.reached((start, name), *more).items()):
            module = self.module(where)
            assert module is not None
            used = module.tree.body if "*" in names else _chosen(module, names)
            body = module.tree.body if where.startswith(WHOLE) else used
            if any(not _is_noise(s) for s in body):
                parts[where] = _digest("".join(self._text(s) for s in body if not _is_noise(s)).encode())
            if any("__file__" in _identifiers(s) for s in used):
                # Its own files are its data, comments and all: the package stage ships them.
                parts |= {str(p.relative_to(self.root)): _digest(self._read(p)) for p in _beside(module.path)}
            tables = [module.path.with_name(text) for s in used for text in _tables_named(s)]
            parts |= {str(p.relative_to(self.root)): _digest(self._read(p)) for p in tables if p.is_file()}
        return parts

    def _text(self, statement: ast.stmt) -> str:
        if statement not in TEXTS:
            TEXTS[statement] = repr(_plain(statement))
        return TEXTS[statement]

    def _cached(self, module: Module, statement: ast.stmt, wanted: str, asked: frozenset[str]) -> list[Edge]:
        of_tasks = module.name.startswith(TASKS)
        key = (statement, wanted if isinstance(statement, IMPORTS) else "", asked if of_tasks else frozenset[str]())
        if key not in EDGES:
            whole = _asked_of(statement, asked) if of_tasks else statement
            EDGES[key] = list(self._edges(module, whole, wanted))
        return EDGES[key]

    def _read(self, path: Path) -> bytes:
        text = self._changed.get(path)
        return path.read_bytes() if text is None else text.encode()

    def _edges(self, module: Module, statement: ast.stmt, wanted: str) -> Iterator[Edge]:
        """What ``statement`` names: definitions beside it, imported ones, modules in strings."""
        if isinstance(statement, IMPORTS):
            for alias in statement.names:
                if wanted in ("*", alias.asname or alias.name.split(".")[0]) or alias.name == "*":
                    yield from self._imported(module, statement, alias, {})
            return
        attributes = _attributes(statement)
        for node in ast.walk(statement):
            if isinstance(node, IMPORTS):
                for alias in node.names:
                    yield from self._imported(module, node, alias, attributes)
            elif isinstance(node, ast.Name) and node.id in module.bound:
                yield from self._named(module, node.id, attributes)
            elif isinstance(node, ast.Name) and node.id == "__name__" and not _is_label(statement, node):
                yield from ((f"{_package_of(module)}.{p.stem}", "*") for p in sorted(module.path.parent.glob("*.py")))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from self._spelt(node.value)

    def _named(self, module: Module, name: str, attributes: dict[str, set[str]]) -> Iterator[Edge]:
        yield module.name, name
        for statement in module.bound[name]:
            if isinstance(statement, IMPORTS):
                for alias in statement.names:
                    if name == (alias.asname or alias.name.split(".")[0]):
                        yield from self._imported(module, statement, alias, attributes)

    def _imported(
        self, module: Module, node: ast.stmt, alias: ast.alias, attributes: dict[str, set[str]]
    ) -> Iterator[Edge]:
        """What an import brings: the name it takes from a module, or of a module the attributes that are used."""
        if isinstance(node, ast.Import):
            used = attributes.get(alias.asname or "", set()) or {"*"}
            yield from ((alias.name, name) for name in used)
            return
        assert isinstance(node, ast.ImportFrom)
        base = _base(module, node)
        inner = f"{base}.{alias.name}"
        if self.module(inner) is not None:
            used = attributes.get(alias.asname or alias.name, set()) or {"*"}
            yield base, ""
            yield from ((inner, name) for name in used)
        elif (source := self.module(base)) is not None:
            yield base, alias.name
            if alias.name not in source.bound:
                yield base, "__getattr__"

    def _spelt(self, text: str) -> Iterator[Edge]:
        """``package.module`` and ``package.module:NAME``; the start of such a name stands for all that begins so."""
        name, _, attribute = text.partition(":")
        if not name.startswith(f"{PACKAGE}.") or not name.replace(".", "").replace("_", "").isalnum():
            return
        if self.module(name.rstrip(".")) is not None:
            yield name.rstrip("."), attribute or "*"
        if name.endswith("."):
            folder = self.root.parent / name.rstrip(".").replace(".", "/")
            yield from ((f"{name}{p.stem}", "*") for p in sorted(folder.glob("*.py")) if p.stem != "__init__")

    def _load(self, name: str) -> Module | None:
        if name.partition(".")[0] != PACKAGE:
            return None
        path = self.root.parent / name.replace(".", "/")
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return _parsed(name, candidate, self._read(candidate).decode())
        return None


@functools.cache  # statements are remembered, and compared by identity
def _asked_of(statement: ast.stmt, asked: frozenset[str]) -> ast.stmt:
    """``statement`` of a task's module without methods, and arguments of the record, of other names than ``asked``."""
    parts = [*asked, "name", "inputs", "answers", "kinds"]
    kept = copy.deepcopy(statement)
    if isinstance(kept, ast.ClassDef):
        kept.body = [s for s in kept.body if not isinstance(s, ast.FunctionDef) or s.name in parts] or [ast.Pass()]
    for node in ast.walk(kept):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Task":
            node.keywords = [k for k in node.keywords if k.arg in parts]
    return kept


def _chosen(module: Module, names: set[str]) -> list[ast.stmt]:
    """The statements that bind ``names``, and what happens at import; in the order of the file."""
    wanted = {id(s) for name in names for s in module.bound.get(name, []) if not isinstance(s, IMPORTS)}
    wanted |= {id(s) for s in module.effects}
    return [s for s in _flat(module.tree.body) if id(s) in wanted]


def _package_of(module: Module) -> str:
    return module.name if module.is_package else module.name.rpartition(".")[0]


def _base(module: Module, node: ast.ImportFrom) -> str:
    """The absolute name of what ``from … import`` takes from."""
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    kept = parts[: len(parts) - node.level + module.is_package]
    return ".".join([*kept, node.module] if node.module else kept)


def _parents(name: str) -> Iterator[str]:
    """Importing a module runs the packages around it."""
    while (name := name.rpartition(".")[0]) != "":
        yield name


def _flat(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Top-level statements, those inside ``if``, ``try`` and ``with`` too."""
    for statement in body:
        yield statement
        for field in ("body", "orelse", "finalbody", "handlers"):
            if isinstance(statement, (ast.If, ast.Try, ast.With)):
                for inner in getattr(statement, field, []):
                    yield from _flat(inner.body if isinstance(inner, ast.ExceptHandler) else [inner])


def _binds(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield statement.name
    elif isinstance(statement, IMPORTS):
        yield from (alias.asname or alias.name.split(".")[0] for alias in statement.names)
    elif isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        yield from (n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))


def _is_definition(statement: ast.stmt) -> bool:
    """Whether importing it does no more than bind names: it counts only where one of these is used."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return not statement.decorator_list
    if isinstance(statement, ast.Assign):
        return all(isinstance(t, (ast.Name, ast.Tuple)) for t in statement.targets)
    if isinstance(statement, ast.If) and "__name__" in _identifiers(statement.test):
        return True  # run as a program, not imported
    if isinstance(statement, ast.If):  # TYPE_CHECKING, versions of Python: imports alone
        return all(
            isinstance(s, IMPORTS) for s in _flat(statement.body + statement.orelse) if not isinstance(s, ast.If)
        )
    return isinstance(statement, (ast.ClassDef, ast.AnnAssign)) or _is_noise(statement)


def _is_noise(node: Any) -> bool:
    """Docstrings, of attributes too, and ``pass``: they change nothing."""
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return text or isinstance(node, ast.Pass)


def _attributes(statement: ast.stmt) -> dict[str, set[str]]:
    """Name → the attributes taken of it; a name that is also used whole is not in it."""
    uses: dict[str, set[str]] = {}
    inner = {id(n.value) for n in ast.walk(statement) if isinstance(n, ast.Attribute)}
    whole = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and id(n) not in inner}
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id not in whole:
            uses.setdefault(node.value.id, set()).add(node.attr)
    return uses


@functools.cache
def _identifiers(node: ast.AST) -> frozenset[str]:
    return frozenset(n.id for n in ast.walk(node) if isinstance(n, ast.Name))


@functools.cache
def _attribute_names(node: ast.AST) -> frozenset[str]:
    return frozenset(n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute))


@functools.cache
def _tables_named(node: ast.AST) -> frozenset[str]:
    """The names of data files in strings."""
    texts = (n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    return frozenset(text for text in texts if text.endswith((".json", ".toml")) and "/" not in text)


def _is_for_types(statement: ast.stmt) -> bool:
    """``if TYPE_CHECKING``: never runs, so nothing can come from there."""
    return isinstance(statement, ast.If) and "TYPE_CHECKING" in _identifiers(statement.test)


def _is_label(statement: ast.stmt, name: ast.Name) -> bool:
    """Whether this ``__name__`` names a logger or asks who was started, and does not find a neighbour."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Compare) and name in ast.walk(node):
            return True
        if isinstance(node, ast.Call) and name in node.args and "getLogger" in ast.dump(node.func):
            return True
    return False


def _beside(path: Path) -> list[Path]:
    """The files that a module may find from its own path."""
    files = [p for p in path.parent.rglob("*") if p.is_file()]
    return sorted(p for p in files if p.suffix != ".pyc" and "__pycache__" not in p.parts)


def _plain(node: Any) -> Any:
    """A syntax tree as nested tuples, the same on every version of Python; without what changes nothing."""
    if isinstance(node, ast.AST):
        skipped = ("type_comment", "kind", "type_params", "ctx")
        fields = ((name, _plain(value)) for name, value in ast.iter_fields(node) if name not in skipped)
        return (type(node).__name__, *((name, value) for name, value in fields if value not in (None, [], ())))
    if isinstance(node, list):
        return [_plain(item) for item in node if not _is_noise(item)]
    return (type(node).__name__, repr(node)) if node is not None else None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def fingerprint(stage: str, code: Code) -> dict[str, Any]:
    """The stage's version, and the digest of each module and file that its result rests on."""
    module, _, name = STAGES[stage].partition(":")
    record = load_stage(stage)
    given = [(f"{PACKAGE}.targets.profile", "Profile")] if record.uses else []  # what comes with the job
    if record.measures_host:  # by its device
        given.append((f"{PACKAGE}.graph.execution.latency", "interleaved_latency"))
    return {"version": record.version, "code": code.files(module, name, *given)}


def all_fingerprints(changed: Mapping[str, str] = MappingProxyType({})) -> dict[str, dict[str, Any]]:
    """Stage name → fingerprint; with ``changed`` (path below the package → text) as if these files held that."""
    code = Code(Path(dlx_deploy.__file__).parent, changed)
    return {name: fingerprint(name, code) for name in STAGES}


if __name__ == "__main__":
    PATH.write_text(json.dumps(all_fingerprints(), indent=1, sort_keys=True) + "\n")
