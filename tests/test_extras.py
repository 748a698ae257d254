"""How messages tell a user to install an extra: from where this copy came from, never by a name on an index."""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path

import pytest

from dlx_deploy.extras import install_command

ROOT = Path(__file__).parents[1]
ROOMS = ("dlx_deploy", "docs", "examples", "scripts", ".ci")
SUFFIXES = (".py", ".md", ".yml", ".toml", ".sh")


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install '.[build]' in dlx-deploy's repository"),
        ({"url": "file:///a%20b/dlx", "dir_info": {"editable": True}}, "pip install -e '/a b/dlx[build]'"),
        ({"url": "file:///w/dlx_deploy-1-py3-none-any.whl"}, "pip install '/w/dlx_deploy-1-py3-none-any.whl[build]'"),
        (
            {"url": "ssh://git@host/us/dlx.git", "vcs_info": {"vcs": "git", "commit_id": "0"}},
            "pip install 'dlx-deploy[build] @ git+ssh://git@host/us/dlx.git'",
        ),
        ({"url": "https://host/d.whl"}, "pip install 'dlx-deploy[build] @ https://host/d.whl'"),
    ],
)
def test_the_command_names_the_origin(
    origin: dict[str, object] | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Installed:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return None if origin is None else json.dumps(origin)

    monkeypatch.setattr(metadata, "distribution", lambda name: Installed())
    assert install_command("build") == command


def test_without_metadata_the_repository_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    assert install_command("hf") == "pip install '.[hf]' in dlx-deploy's repository"


def test_nothing_tells_a_user_to_install_our_name_from_an_index() -> None:
    """Somebody else could register it there."""
    places = [ROOT / "README.md", *(p for room in ROOMS for p in (ROOT / room).rglob("*") if p.suffix in SUFFIXES)]
    named = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in places
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"pip install (-\S+ )*['\"`]*dlx-deploy(?!.* @ )", line)
    ]
    assert len(places) > 100
    assert named == []
