"""The site: every page is in it, what is quoted is what the program says, and numbers are what the code computes."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator
from statistics import NormalDist

import pytest
import yaml

from dlx_deploy.runtime.statistics.drops import drop_upper_bound
from dlx_deploy.runtime.statistics.search import fewest

from ..modules import load_module
from .pages import DOCS

ROOT = DOCS.parent
MADE = {"reference/configuration.md", "reference/commands.md"}


def nav(entries: list[object]) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        elif isinstance(entry, dict):
            for value in entry.values():
                yield from nav(value if isinstance(value, list) else [value])


def test_every_page_is_in_the_navigation_once() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = list(nav(settings["nav"]))
    there = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")} | MADE
    assert sorted(listed) == sorted(there)
    assert settings["strict"] is True


def links() -> list[tuple[str, str]]:
    return [
        (str(page.relative_to(DOCS)), target)
        for page in sorted(DOCS.rglob("*.md"))
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
        if not target.startswith("http")
    ]


@pytest.mark.parametrize(("page", "target"), links())
def test_links_between_pages_lead_somewhere(page: str, target: str) -> None:
    """Headings too; mkdocs checks the rest, where it is installed."""
    path, _, heading = target.partition("#")
    where = (DOCS / page).parent / path if path else DOCS / page
    relative = str(where.resolve().relative_to(DOCS))
    assert where.is_file() or relative in MADE
    if heading:
        assert heading in {slug(title) for title in re.findall(r"^#+ (.*)$", where.read_text(encoding="utf-8"), re.M)}


def slug(title: str) -> str:
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())


@pytest.fixture(scope="module")
def messages() -> list[str]:
    """Every text of the program, what differs as an ellipsis."""
    texts = []
    for path in (ROOT / "dlx_deploy").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(p.value if isinstance(p, ast.Constant) else "…" for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def quoted() -> list[str]:
    page = (DOCS / "guide" / "troubleshooting.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\| message .*\n\|[-| ]+\n((?:\|.*\n)+)", page, re.M)
    cells = [row.split("|")[1].strip() for table in tables for row in table.splitlines()]
    return [cell.strip("`") for cell in cells if re.fullmatch(r"`[^`]+`", cell)]


@pytest.mark.parametrize("message", quoted())
def test_messages_are_quoted_as_they_are(messages: list[str], message: str) -> None:
    assert any(message in text for text in messages)


def test_enough_messages_are_explained() -> None:
    assert len(quoted()) >= 20


def needed(flips: float, drop: float, budget: float) -> int:
    """How many samples pass with a chance of 0.8 at a confidence of 0.95, as the gate's own message says it."""
    z = NormalDist().inv_cdf(0.95) + NormalDist().inv_cdf(0.8)
    powered = math.ceil(z * z * (flips - drop * drop) / (budget - drop) ** 2)

    def enough(n: int) -> bool:
        return drop_upper_bound((flips + drop) / 2 * n, (flips - drop) / 2 * n, n, 0.95) <= budget

    return max(powered, fewest(enough, above=0))


def test_how_many_samples_a_budget_takes_is_what_the_gate_computes() -> None:
    page = (DOCS / "guide" / "choosing.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) % \| (0|half the budget) \| (.*) \|$", page, re.M)
    assert len(rows) == 7
    for share, drop, cells in rows:
        flips, budgets = int(share) / 100, (0.005, 0.01, 0.02, 0.05)
        drops = [0.0 if drop == "0" else min(flips, budget / 2) for budget in budgets]
        given = [int(cell.replace(",", "")) for cell in cells.split(" | ")]
        assert given == [needed(flips, d, b) for d, b in zip(drops, budgets, strict=True)], (share, drop)


def test_every_key_of_the_configuration_is_explained() -> None:
    import msgspec

    from dlx_deploy.config import Config

    page = load_module(ROOT / "scripts" / "site_pages.py").configuration_page()
    for section in msgspec.structs.fields(Config):
        kind = section.type
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            body = page.partition(f"## [{section.name}]\n")[2].partition("\n## ")[0]
            assert body, section.name
        else:
            assert f"`{section.name}`" in page or f"[{section.name}]" in page
    from dlx_deploy.config.data import Data

    body = page.partition("## [data]\n")[2].partition("\n## ")[0]
    for key in msgspec.structs.fields(Data):
        (row,) = re.findall(rf"^\| `{key.name}` \| `.*` \| (.*) \| (.*) \|$", body, re.M)
        assert row[0], key.name


def test_every_command_is_explained() -> None:
    import typer

    from dlx_deploy.cli import app

    page = load_module(ROOT / "scripts" / "site_pages.py").commands_page()
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if not command.hidden and not hasattr(command, "commands"):
            assert f"\n## {name}\n" in page
            for parameter in command.params:
                hidden = parameter.param_type_name == "argument" or getattr(parameter, "hidden", False)
                assert hidden or f"`{', '.join(parameter.opts)}`" in page
