"""What counts as installed of what a user's file imports from its own folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlx_deploy.nn.user_code import found_beside

EDITABLE = json.dumps({"url": "file:///repo", "dir_info": {"editable": True}})


@pytest.fixture(autouse=True)
def _no_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed here is not looked at, which takes seconds; it lists none of these modules."""
    monkeypatch.setattr("dlx_deploy.nn.user_code.packages_distributions", dict)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A network's file in a repository, and a module beside it."""
    folder = tmp_path / "repo" / "src"
    folder.mkdir(parents=True)
    (folder / "blocks_of_hers.py").write_text("A = 1\n")
    (folder / "net_of_hers.py").write_text("import blocks_of_hers\n")
    return folder / "net_of_hers.py"


@pytest.fixture
def site(tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed distributions, with one that is installed in place as hatch does it; Python finds what is
    in the repository all the same."""
    folder = tmp_path / "site"
    info = folder / "hers-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hers\nVersion: 1.0\n")
    (info / "RECORD").write_text("_hers.pth,,\nhers-1.0.dist-info/METADATA,,\nhers-1.0.dist-info/RECORD,,\n")
    (info / "direct_url.json").write_text(EDITABLE)
    (folder / "_hers.pth").write_text(f"# a comment\nimport sys\n{network.parent}\n")
    for path in (folder, network.parent):
        monkeypatch.syspath_prepend(path)
    return folder


def test_a_repository_that_is_installed_in_place_is_installed(site: Path, network: Path) -> None:
    assert found_beside(network) == []
    (site / "_hers.pth").write_text("../repo/src\n")  # from where it lies
    assert found_beside(network) == []


def test_another_folder_s_installation_installs_nothing_here(site: Path, network: Path) -> None:
    (site / "_hers.pth").write_text(f"{network.parent.parent}\n")
    assert found_beside(network) == ["blocks_of_hers.py"]


@pytest.mark.parametrize("text", ["", "no JSON", "[]", json.dumps({"url": "file:///repo", "dir_info": {}})])
def test_what_is_not_installed_in_place_puts_no_folder_there(site: Path, network: Path, text: str) -> None:
    (site / "hers-1.0.dist-info" / "direct_url.json").write_text(text)
    assert found_beside(network) == ["blocks_of_hers.py"]


def test_what_python_finds_nowhere_is_not_installed(site: Path, network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [str(site)])
    assert found_beside(network) == ["blocks_of_hers.py"]


def test_a_link_among_the_installed_is_an_installation(
    tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``flit install --symlink`` makes it."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    assert found_beside(network) == ["blocks_of_hers.py"]
    (site / "blocks_of_hers.py").symlink_to(network.parent / "blocks_of_hers.py")
    monkeypatch.syspath_prepend(site)  # which has its list of files read anew
    assert found_beside(network) == []
