from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import msgspec
import pytest

import dlx_deploy.targets
import dlx_deploy.targets.loader as loader
from dlx_deploy.errors import ConfigError
from dlx_deploy.targets import Profile, load_target

Board = Callable[..., Path]
DOCUMENT = Path(__file__).parents[2] / "docs" / "adding-a-target.md"


def offer(monkeypatch: pytest.MonkeyPatch, name: str, value: str, module: Path) -> None:
    """An installed package that offers target ``name`` through an entry point."""
    monkeypatch.syspath_prepend(module.parent)
    point = EntryPoint(name, value, "dlx_deploy.targets")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point] if group == point.group else [])


def test_alias_is_said() -> None:
    target = load_target("jetson")
    assert target.profile == load_target("jetson-orin-nano-8gb").profile
    assert target.note == "jetson is an alias of jetson-orin-nano-8gb (Jetson Orin Nano 8 GB)"


def test_alias_reads_two_files(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    parse = loader._parse

    def watched(source: Any, origin: str) -> dict[str, Any]:
        seen.append(origin)
        return parse(source, origin)

    monkeypatch.setattr(loader, "_parse", watched)
    load_target("jetson")
    assert sorted(seen) == ["aliases.toml", "jetson-orin-nano-8gb.toml"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("jetsn", "nearest valid name: 'jetson'"),
        ("rtx-4080", "nearest valid name: 'rtx-4090'"),
        ("", "valid names: a10"),
    ],
)
def test_unknown_target_names_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=rf"target {name!r} is not known; {hint}.*--target \./board\.toml"):
        load_target(name)


@pytest.mark.parametrize("name", ["..", "../rpi4", "profiles/rpi4", ".hidden", "RPI4"])
def test_odd_names_reach_no_file(name: str) -> None:
    with pytest.raises(ConfigError, match=r"is not known|no such file"):
        load_target(name)


def test_profile_survives_a_round_trip_through_json() -> None:
    profile = load_target("jetson-agx-orin-64gb").profile
    assert msgspec.json.decode(msgspec.json.encode(profile), type=Profile) == profile


# A board file of one's own


def test_board_extends_and_overrides_some_keys(board: Board) -> None:
    path = board('extends = "jetson-orin-nx-16gb"\npower_mode = "15W"\n[roofline]\nint8_tops = 10.0\n', "gate.toml")
    parent = load_target("jetson-orin-nx-16gb").profile
    target = load_target(path)
    assert target.note == ""
    assert target.profile == msgspec.structs.replace(
        parent,
        name="gate",
        title="gate (from Jetson Orin NX 16 GB)",
        power_mode="15W",
        roofline=msgspec.structs.replace(parent.roofline, int8_tops=10.0),
    )


def test_board_extends_an_alias_and_a_neighbour(board: Board) -> None:
    board('extends = "jetson"\nopset = 17\n', "first.toml")
    profile = load_target(board('extends = "./first.toml"\nworkspace_mib = 7\n', "second.toml")).profile
    assert (profile.name, profile.opset, profile.workspace_mib) == ("second", 17, 7)


def test_whole_board_without_extends(board: Board) -> None:
    text = (Path(dlx_deploy.targets.__file__).parent / "profiles" / "rpi5.toml").read_text(encoding="utf-8")
    profile = load_target(board(text.replace('name = "rpi5"', 'name = "mine"'))).profile
    assert profile == msgspec.structs.replace(load_target("rpi5").profile, name="mine")


def test_the_documented_board_loads(board: Board) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL)
    profile = load_target(board(text)).profile
    assert (profile.name, profile.power_mode, profile.sm_count) == ("gate-camera", "15W", 4)
    assert profile.roofline.int8_tops == pytest.approx(4 * 0.918 * 4096 / 1e3, rel=0.01)
    assert profile.roofline.memory_gb_per_s == load_target("jetson-orin-nx-16gb").profile.roofline.memory_gb_per_s


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('extends = "jetson"\nopsett = 17', r"board\.toml: unknown key 'opsett' \(17\); nearest valid name: 'opset'"),
        (
            'extends = "jetson"\n[roofline]\nint8_top = 3.0',
            r"unknown key 'roofline\.int8_top' \(3\.0\); nearest valid name: 'int8_tops'",
        ),
        ('extends = "jetson"\nprecisions = ["fp32", "int9"]', r"board\.toml: precisions\[1\] is 'int9'; "),
        ('extends = "jetson"\nopset = "20"', r"board\.toml: opset is '20'; rule: Expected `int`"),
        ('extends = "jetson"\nname = "My Board"', r"board\.toml: name is 'My Board'; rule: "),
        ('extends = "jetson"\nname = "rpi4"', r"name is 'rpi4', which is a built-in target; choose another name"),
        ('extends = "jetson"\nname = "thor"', r"name is 'thor', which is a built-in target; choose another name"),
        ('extends = "jetson"\nschema = 2', r"board\.toml: schema is 2; this version reads up to 1; use a newer"),
        ('extends = "jetson"\nschema = "1"', r"board\.toml: schema is '1'; rule: 1, or leave it out"),
        ("extends = 3", r"board\.toml: extends is 3; rule: the name or path of one target"),
        (
            'extends = "jetzon"',
            r"board\.toml: extends 'jetzon': target 'jetzon' is not known; nearest valid name: 'jetson'",
        ),
        ('extends = "board.toml"', r"extends goes in a circle \(board\.toml -> board\.toml\); start from a built-in"),
        ('schema = 1\ntitle = "x"', r"board\.toml: key 'kind' is missing; write it, or .*extends = \"jetson-orin-nano"),
        ("schema = ", r"board\.toml: not valid TOML: "),
    ],
)
def test_board_that_cannot_be_used(board: Board, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_target(board(text))
    assert caught.value.exit_code == 2


def test_key_missing_inside_a_table(board: Board) -> None:
    text = (Path(dlx_deploy.targets.__file__).parent / "profiles" / "rpi5.toml").read_text(encoding="utf-8")
    text = re.sub(r'name = "rpi5"\n', "", re.sub(r"eff_memory.*\n", "", text))
    with pytest.raises(ConfigError, match=r"board\.toml: key 'roofline\.eff_memory' is missing; write it, or start"):
        load_target(board(text))


def test_circle_of_two(board: Board) -> None:
    board('extends = "two.toml"', "one.toml")
    with pytest.raises(ConfigError, match=r"extends goes in a circle \(two\.toml -> one\.toml -> two\.toml\)"):
        load_target(board('extends = "one.toml"', "two.toml"))


def test_board_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: no such file; the built-in targets: dlx-deploy targets list"):
        load_target(tmp_path / "none.toml")


def test_board_file_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        load_target(tmp_path)


def test_board_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.toml: not valid TOML: 'utf-8' codec"):
        load_target(tmp_path / "binary.toml")


# Entry points


def test_entry_point_gives_a_path(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    path = board('extends = "rpi5"\n', "kiosk-board.toml")
    module = board(f"def kiosk():\n    return {str(path)!r}\n", "boards_by_path.py")
    offer(monkeypatch, "kiosk", "boards_by_path:kiosk", module)
    profile = load_target("kiosk").profile
    assert (profile.name, profile.title) == ("kiosk", "kiosk (from Raspberry Pi 5)")


def test_entry_points_are_not_asked_for_known_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(group: str) -> list[EntryPoint]:
        raise AssertionError(group)

    monkeypatch.setattr("importlib.metadata.entry_points", refuse)
    assert load_target("jetson").profile.name == "jetson-orin-nano-8gb"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "boards_broken:missing",
            r"target 'kiosk': entry point 'boards_broken:missing' cannot be loaded .*reinstall it",
        ),
        ("boards_nowhere:board", r"'boards_nowhere:board' cannot be loaded \(ModuleNotFoundError: No module named"),
        ("boards_broken:TEXT", r"gives 'x\.toml'; rule: a function without arguments that returns the path"),
        ("boards_broken:number", r"gives 7; rule: a function without arguments that returns the path of a board file"),
    ],
)
def test_entry_point_that_cannot_be_used(
    board: Board, monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    module = board("TEXT = 'x.toml'\n\n\ndef number():\n    return 7\n", "boards_broken.py")
    offer(monkeypatch, "kiosk", value, module)
    with pytest.raises(ConfigError, match=message):
        load_target("kiosk")


def test_unknown_name_may_be_near_an_entry_point(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "kiosk-42", "nowhere:x", board("", "boards_empty.py"))
    with pytest.raises(ConfigError, match="nearest valid name: 'kiosk-42'"):
        load_target("kiosk-43")


def test_loading_a_target_imports_nothing_heavy() -> None:
    code = (
        "import sys; from dlx_deploy.targets import load_target, read_host, is_this_host\n"
        "is_this_host(load_target('jetson').profile, read_host())\n"
        "print(sorted({'numpy', 'torch', 'onnx', 'onnxruntime', 'importlib.metadata'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_exact() -> None:
    public = {n for n, v in vars(dlx_deploy.targets).items() if not n.startswith("_") and not hasattr(v, "__path__")}
    modules = {"checks", "hazards", "host", "kernels", "loader", "operators", "opsets", "profile", "roofline"}
    assert public - modules == set(dlx_deploy.targets.__all__)
