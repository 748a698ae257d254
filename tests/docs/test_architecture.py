"""docs/architecture.md names, for each room, every other room that it imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import dlx_deploy

ROOT = Path(dlx_deploy.__file__).parent
PAGE = ROOT.parent / "docs" / "architecture.md"
ROW = re.compile(r"^\| (`[^|]+) \|[^|]+\| ([^|;]+)[;|]", re.MULTILINE)
TABLE = {
    tuple(re.findall(r"`(\w+)(?:\.py|/)`", rooms)): set(named.strip().split(", "))
    for rooms, named in ROW.findall(PAGE.read_text(encoding="utf-8"))
}
EVERY = {path.stem for path in ROOT.iterdir() if (path / "__init__.py").is_file() or path.suffix == ".py"} - {
    "__init__"
}


def imported(path: Path) -> Iterator[str]:
    """The rooms that a module imports, wherever in it and for types too."""
    package = ["dlx_deploy", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            named = [*base, *(node.module.split(".") if node.module else [])]
            modules = [named] if len(named) != 1 else [[*named, alias.name] for alias in node.names]
        else:
            continue
        yield from (m[1] for m in modules if m[0] == "dlx_deploy" and len(m) > 1 and m[1] in EVERY)


def needs(rooms: tuple[str, ...]) -> set[str]:
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    files += [path for room in rooms if (path := ROOT / f"{room}.py").is_file()]
    return {room for path in files for room in imported(path)} - set(rooms)


def test_every_room_has_a_row() -> None:
    assert sorted(room for rooms in TABLE for room in rooms) == sorted(EVERY)


@pytest.mark.parametrize("rooms", TABLE, ids=lambda rooms: rooms[0])
def test_a_row_names_all_that_its_rooms_import(rooms: tuple[str, ...]) -> None:
    assert TABLE[rooms] - {"numpy"} == needs(rooms)


def test_the_count_sees_every_kind_of_import() -> None:
    assert "graph" in set(imported(ROOT / "devices" / "device.py")), "for types alone"
    assert "report" in set(imported(ROOT / "commands" / "builds.py")), "inside a function"
    assert set(imported(ROOT / "runtime" / "tasks" / "table.py")) == {"runtime"}, "relative"
