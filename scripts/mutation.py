"""Which mutations of a module no test notices: cosmic-ray's operators on a seeded sample, one fork per mutant.

    python -m pip install cosmic-ray
    python scripts/mutation.py --sample 80 --seed 1 dlx_deploy/runtime/package/unzip.py -- tests/runtime/test_archive.py

The tests are collected once. A mutant inside a function replaces that function's code in a fork, which runs the tests
that call the function, the quickest first, until one fails; any other mutant is imported afresh there. Drawn are places
(an operator's kind at a position in the source), then one of its variants; beside cosmic-ray's operators stand two that
it lacks, a statement or a keyword argument left out. Not drawn is what changes nothing that runs (annotations). What is
left are survivors, printed as a diff line. A test that starts another Python sees no mutant there.
"""

from __future__ import annotations

import argparse
import ast
import gc
import importlib.machinery
import os
import random
import resource
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import cosmic_ray.plugins
import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

Mutant = tuple[str, Path, str]  # operator, file, its whole mutated source
Place = tuple[str, int, int]  # kind of operator, line, column
OFF = ["randomly", "cacheprovider", "terminal", "xdist"]
OPTIONS = ["-x", "-o", "addopts=--import-mode=importlib", "-m", "not slow and not gpu and not matrix"]
OPTIONS += ["--hypothesis-seed=0", "--capture=no", *(x for name in OFF for x in ("-p", f"no:{name}"))]
LIMIT_S = 120  # of processor time, as the machine may be busy: a mutant that takes more loops for ever


def places(source: str) -> Iterator[tuple[Place, str, Callable[[], str | None]]]:
    """Every mutation of ``source``: its place, its operator, and what makes the mutated text."""
    tree = get_ast(source)
    for name in cosmic_ray.plugins.operator_names():
        kind = cosmic_ray.plugins.get_operator(name)
        if kind.arguments() or name.endswith(("NoOp", "_Eq_Is", "_NotEq_IsNot")):  # the latter are == for small numbers
            continue
        operator = kind()
        found = (start for node in ast_nodes(tree) for start, _ in operator.mutation_positions(node))
        for occurrence, (line, column) in enumerate(found):
            place = (name.removeprefix("core/").split("_")[0], line, column)
            yield place, name, lambda o=operator, n=occurrence: _mutated(source, o, n)
    yield from _left_out(source)


def _mutated(source: str, operator: Any, occurrence: int) -> str | None:
    try:
        return mutate_code(source, operator, occurrence)
    except AttributeError:  # its ExceptionReplacer knows no dotted names
        return None


def _left_out(source: str) -> Iterator[tuple[Place, str, Callable[[], str | None]]]:
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            plain = isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant | ast.Yield | ast.YieldFrom)
            if plain or isinstance(node, ast.Raise | ast.AugAssign | ast.Delete | ast.Return | ast.If):
                yield from _replaced(source, "StatementLeftOut", node, "pass")
            for argument in node.keywords if isinstance(node, ast.Call) else ():
                yield from _replaced(source, "KeywordLeftOut", argument, "")


def _replaced(source: str, name: str, node: Any, by: str) -> Iterator[tuple[Place, str, Callable[[], str | None]]]:
    lines = source.encode().splitlines(keepends=True)
    first = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
    last = sum(map(len, lines[: node.end_lineno - 1])) + node.end_col_offset
    if lines[node.lineno - 1][node.col_offset :].startswith(b"elif"):
        return
    data = source.encode()
    after = data[last:]
    if not by:  # the comma goes with the argument
        after = after.lstrip().removeprefix(b",")
    padding = b"" if not by else b"\n" * data[first:last].count(b"\n")  # later lines keep their numbers
    mutated = (data[:first] + by.encode() + padding + after).decode()
    yield (name, node.lineno, node.col_offset), name, lambda: mutated


def drawn(paths: list[Path], count: int, seed: int) -> list[Mutant]:
    """``count`` mutants of ``paths`` (or all there are), each of another place."""
    at: dict[tuple[Path, Place], list[tuple[str, Callable[[], str | None]]]] = defaultdict(list)
    for path in paths:
        for place, name, make in places(path.read_text()):
            at[path, place].append((name, make))
    generator, found = random.Random(seed), []
    order = sorted(at, key=str)
    generator.shuffle(order)
    for path, place in order:
        name, make = generator.choice(at[path, place])
        if len(found) < count and (source := make()) is not None and _runs_differently(path, source):
            found.append((name, path, source))
    print(f"{len(at)} places, {len(found)} drawn", flush=True)
    return found


def _runs_differently(path: Path, source: str) -> bool:
    try:
        return ast.dump(_bare(source)) != ast.dump(_bare(path.read_text()))
    except SyntaxError:
        return False


def _bare(source: str) -> ast.Module:
    """The tree of ``source`` without annotations."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign | ast.arg):
            node.annotation = ast.Constant(None)
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
    return tree


def _functions(code: CodeType) -> dict[tuple[str, int], CodeType]:
    """The code of every function of a module that lies in no other function, by name and line."""
    found: dict[tuple[str, int], CodeType] = {}
    for part in code.co_consts:
        if isinstance(part, CodeType):
            is_function = part.co_flags & 0x2  # CO_NEWLOCALS: classes lack it
            found |= {(part.co_qualname, part.co_firstlineno): part} if is_function else _functions(part)
    return found


def _shell(code: CodeType) -> Any:
    """What a module's code does beside what is inside its functions."""
    inner = [
        (_shell(c) if not c.co_flags & 0x2 else c.co_qualname) if isinstance(c, CodeType) else (type(c), c)
        for c in code.co_consts
    ]
    return code.co_code, code.co_names, inner


def changed_function(path: Path, source: str) -> tuple[tuple[str, int], CodeType] | None:
    """The one function that is other in ``source``, and its new code; None if something else is."""
    old, new = compile(path.read_text(), str(path), "exec"), compile(source, str(path), "exec")
    before, after = _functions(old), _functions(new)
    different = [key for key in before if key in after and before[key] != after[key]]
    if before.keys() != after.keys() or len(different) != 1 or _shell(old) != _shell(new):
        return None
    return different[0], after[different[0]]


class Forks:
    """A pytest plugin that runs the collected tests once per mutant, in forks."""

    def __init__(self, mutants: list[Mutant]) -> None:
        self.mutants = mutants
        self.afresh: list[Mutant] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Instead of the tests: the baseline, then the mutants."""
        calls = self._baseline(session)
        for mutant in self.mutants:
            _, path, source = mutant
            found = changed_function(path, source)
            if found is not None:
                (name, line), code = found
                tests = sorted(calls.get((str(path), name, line), []))
                if not self._survives(tests, session, path, line, code):
                    continue
            self.afresh.append(mutant)  # a survivor too: a test module may have called the function when it was loaded
        return True

    def _survives(self, tests: Any, session: pytest.Session, path: Path, line: int, code: CodeType) -> bool:
        place = (str(path), code.co_qualname, line)

        def run() -> bool:
            for function in gc.get_objects():
                if isinstance(function, FunctionType):
                    old = function.__code__
                    if (old.co_filename, old.co_qualname, old.co_firstlineno) == place:
                        function.__code__ = code
            return _pass(session, [session.items[i] for _, i in tests])

        return not tests or _forked(run) == b"1"

    def _baseline(self, session: pytest.Session) -> dict[tuple[str, str, int], list[tuple[float, int]]]:
        """Function → the tests that call it, as (seconds, number)."""
        files = {str(path) for _, path, _ in self.mutants}

        def run() -> Any:
            calls = defaultdict(list)
            for number, item in enumerate(session.items):
                seen: set[tuple[str, str, int]] = set()

                def note(frame: Any, event: str, _: Any, seen: set[tuple[str, str, int]] = seen) -> None:
                    if event == "call" and frame.f_code.co_filename in files:
                        seen.add((frame.f_code.co_filename, frame.f_code.co_qualname, frame.f_code.co_firstlineno))

                began = time.monotonic()
                sys.setprofile(note)
                passed = _pass(session, [item])
                sys.setprofile(None)
                if not passed:
                    raise SystemExit(f"{item.nodeid} fails without a mutant")
                for key in seen:
                    calls[key].append((time.monotonic() - began, number))
            return dict(calls)

        answer = _forked(lambda: repr(run()), limit=10 * LIMIT_S)
        if not answer.startswith(b"{"):
            raise SystemExit(f"the tests do not pass as they are: {answer.decode()}")
        return ast.literal_eval(answer.decode())


def _pass(session: pytest.Session, items: list[pytest.Item]) -> bool:
    session.testsfailed = 0
    for i, item in enumerate(items):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=items[i + 1] if i + 1 < len(items) else None)
        if session.testsfailed:
            return False
    return True


def _forked(run: Callable[[], Any], limit: int = LIMIT_S) -> bytes:
    """What ``run`` gives in a fork, as text (True is 1); empty if it dies, or works or waits for too long."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        signal.alarm(10 * limit)
        os.close(reader)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            answer = run()
            data = answer.encode() if isinstance(answer, str) else str(int(answer)).encode()
        except BaseException as e:
            data = f"E {e}".encode()
        with os.fdopen(writer, "wb") as f:
            f.write(data)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as f:
        answer = f.read()
    os.waitpid(child, 0)
    return answer


def run_afresh(mutant: Mutant, tests: list[str]) -> bool:
    """Whether every test passes where the mutant's module is imported anew."""
    _, path, source = mutant
    own = str(Path.cwd())

    def run() -> bool:
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(own) and name != "__main__":
                del sys.modules[name]
        get_code = importlib.machinery.SourceFileLoader.get_code

        def mutated(self: Any, name: str) -> Any:
            return compile(source, self.path, "exec") if self.path == str(path) else get_code(self, name)

        importlib.machinery.SourceFileLoader.get_code = mutated  # type: ignore[method-assign]
        return pytest.main([*OPTIONS, *tests]) == 0

    return _forked(run) == b"1"


def report(mutant: Mutant) -> None:
    """Prints the first line that is other in ``mutant``."""
    name, path, source = mutant
    old, new = path.read_text().splitlines(), source.splitlines()
    first = next(i for i in range(len(old)) if i >= len(new) or old[i] != new[i])
    print(f"{path.name}:{first + 1} {name}\n  - {old[first].strip()}\n  + {''.join(new[first : first + 1]).strip()}")


def main() -> int:
    """0 if no mutant survives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="+", type=Path)
    parser.add_argument("--sample", type=int, default=80)
    parser.add_argument("--seed", type=int, default=1)
    split = sys.argv.index("--")
    asked, tests = parser.parse_args(sys.argv[1:split]), sys.argv[split + 1 :]
    mutants = drawn([path.absolute() for path in asked.modules], asked.sample, asked.seed)
    plugin = Forks(mutants)
    pytest.main([*OPTIONS, *tests], plugins=[plugin])
    survivors = [mutant for mutant in plugin.afresh if run_afresh(mutant, tests)]
    for mutant in survivors:
        report(mutant)
    print(f"{len(mutants)} mutants, {len(mutants) - len(survivors)} killed, {len(survivors)} survived")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
