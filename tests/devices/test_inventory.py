"""Who is meant where a board is asked for, and what ``boards.toml`` may say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dlx_deploy.devices.inventory import example_inventory, load_inventory, resolve_boards
from dlx_deploy.errors import ConfigError

from ..conftest import Here

SMALL = """
[boards.a]
ssh = "edge@a.example"
groups = ["lab"]
[boards.b]
ssh = "ssh://b.example:2222/srv/x"
power_mode = "15W"
[groups]
all = ["lab", "b", "a"]
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "boards.toml"
    path.write_text(SMALL)
    return path


def names(found: object) -> list[str]:
    return [board.name for board in found]  # type: ignore[attr-defined]


def test_the_example_is_valid_and_its_groups_are_whole(tmp_path: Path) -> None:
    (tmp_path / "boards.toml").write_text(example_inventory())
    known = load_inventory(tmp_path / "boards.toml")
    assert known.groups["everything"] == ("bench", "gate-1", "gate-2")
    assert known.boards["bench"].address == "ssh://edge@192.168.1.20/~/dlx-deploy/door"
    assert known.boards["bench"].groups == ("everything", "lab")


def test_names_groups_and_addresses_mean_each_board_once(small: Path) -> None:
    found = resolve_boards(["b", "all", "ssh://c.example", "ssh://b.example:2222/srv/x"], small)
    assert names(found) == ["b", "a", "ssh://c.example"]
    assert found[0].power_mode == "15W", "the address of a board that has a name is that board"


def test_without_an_inventory_addresses_alone_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = resolve_boards(["ssh://edge@x:22/p", "ssh://edge@x:22/p/"])
    assert [board.address for board in found] == ["ssh://edge@x:22/p"]
    with pytest.raises(ConfigError, match="'ssh://-x' is no address of a board"):
        resolve_boards(["ssh://-x"])
    with pytest.raises(ConfigError, match=r"'u:…@x' is no address of a board: it begins with ssh://"):
        resolve_boards(["u:secret@x"])
    with pytest.raises(ConfigError, match=r"board 'x': no boards\.toml here .* as in ssh://user@x, or write one with"):
        resolve_boards(["x"])


def test_the_working_folder_s_inventory_is_read(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small.parent)
    assert names(resolve_boards(["lab"])) == ["a"]


BAD = {
    '[boards.a]\nssh = "x"\n[boards.a]\nssh = "y"': "not valid TOML: .*a",
    '[boards.a]\nssh = "x"\n[boards.b]\nssh = "ssh://x"': "a and b are both ssh://x; rule: one name for each place",
    '[boards.a]\nssh = "x"\n[groups]\na = []': "'a' is a board and a group; rule: one name, one meaning",
    '[groups]\nx = ["y"]\ny = ["z"]\nz = ["x"]': "groups go in a circle (x -> y -> z -> x)",
    '[boards.alpha]\nssh = "x"\n[groups]\nx = ["alhpa"]': "'alhpa', which is nothing; nearest valid name: 'alpha'",
    '[boards.a]\nssh = "x"\npaht = "y"': "boards.a: unknown key 'paht' ('y'); nearest valid name: 'path'",
    "[boards.a]\nssh = 3": "boards.a: ssh is 3; rule: Expected `str`, got `int`: text in quotes",
    "[boards.a]": "rule: Object missing required field `ssh`",
    '[boards."a b"]\nssh = "x"': "boards.'a b' is no name; rule: letters, digits",
    '[boards.a]\nssh = "x/y"\npath = "z"': "ssh is 'x/y' and path is 'z'; say the path once",
    '[boards.a]\nssh = "x"\ntarget = "jetsn"': "boards.a.target: target 'jetsn'",
    '[boards.a]\nssh = "-oProxyCommand=x"': "'ssh://-oProxyCommand=x' is no address of a board: a host",
    '[boards.a]\nssh = "x:0"': "a port is a number from 1 to 65535",
    '[boards.a]\nssh = "u:secret@x"': "boards.a: 'ssh://u:…@x' is no address of a board: passwords are not taken",
    "schema = 2": "schema is 2; this version reads up to 1",
    "schema = 0": "schema is 0; rule: 1, or leave it out",
}


@pytest.mark.parametrize("text", BAD)
def test_what_cannot_be_meant_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "boards.toml"
    path.write_text(text)
    pattern = BAD[text] if ".*" in BAD[text] else re.escape(BAD[text])
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}: .*{pattern}"):
        load_inventory(path)


def test_a_group_of_nobody_and_unknown_names_are_refused(small: Path) -> None:
    small.write_text(SMALL + "none = []\n")
    with pytest.raises(ConfigError, match=r"group 'none' of .*boards\.toml has no boards"):
        resolve_boards(["none"], small)
    with pytest.raises(ConfigError, match=r"board 'lba': .*boards\.toml has no such board or group; nearest .* 'lab'"):
        resolve_boards(["lba"], small)


def test_groups_of_groups_are_looked_at_once_each(tmp_path: Path) -> None:
    """64 groups that each hold the one before twice over are 2^64 ways to one board."""
    lines = ['[boards.a]\nssh = "x"\n[groups]\nl0 = ["a"]\nr0 = ["a"]']
    lines += [f'l{n} = ["l{n - 1}", "r{n - 1}"]\nr{n} = ["r{n - 1}", "l{n - 1}"]' for n in range(1, 64)]
    (tmp_path / "boards.toml").write_text("\n".join(lines))
    assert load_inventory(tmp_path / "boards.toml").groups["l63"] == ("a",)


def test_boards_are_listed(here: Here, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert here("boards", "--example").out == example_inventory()
    listed = here("boards", "--json", "all")
    assert [b["name"] for b in json.loads(listed.out)["boards"]] == ["a", "b"]
    assert "ssh://b.example:2222/srv/x" in here("boards").out
    other = small.rename(tmp_path / "other.toml")
    none = here("boards")
    assert (none.code, none.err.strip()) == (
        2,
        "error: there is no boards.toml here; write one with: dlx-deploy boards --example > boards.toml",
    )
    monkeypatch.setenv("DLX_DEPLOY_BOARDS", str(other))
    assert here("boards").out.count("ssh://") == 2
    assert here("boards", "--boards", "no.toml").code == 2
