"""Libraries for a board that lacks them: what is asked for, which wheels fit, how they come there."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlx_deploy.devices.asking import Agent, BoardFacts
from dlx_deploy.devices.pushing.bootstrap import Bootstrap, Wheelhouse, bring, use
from dlx_deploy.devices.pushing.wheels import Interpreter, Wheel, fetch_wheels, platform_tags, requirements
from dlx_deploy.errors import BoardError, BoardUnfit, ConfigError, EnvironmentMissing

from ..agent.test_wheels import FILES, wheel
from ..fake_board import FakeBoard

ORIN = Interpreter("3.10.12", "aarch64", "2.35")
HERE = "py3-none-any"


@pytest.mark.parametrize(
    ("installed", "needed", "wanted"),
    [
        (["python"], ["onnxruntime"], ["numpy>=1.24", "onnxruntime>=1.17,<1.33"]),
        (["numpy", "onnxruntime-gpu"], [], []),
        (["numpy", "onnxruntime"], ["onnxruntime", "pillow"], ["onnxruntime>=1.17,<1.33", "pillow"]),
        (["numpy", "tensorrt"], ["cuda-python"], ["cuda-python>=12"]),
        (["numpy", "onnxruntime", "pillow"], ["pillow"], []),
        (["numpy", "onnxruntime", "cryptography"], ["cryptography"], ["cryptography>=3.4"]),
        (["numpy", "onnxruntime"], ["pyopenssl"], ["pyopenssl>=20.0", "typing-extensions"]),
    ],
)
def test_what_lacks_is_asked_for_and_nothing_else(installed: list[str], needed: list[str], wanted: list[str]) -> None:
    assert requirements(installed, needed) == tuple(wanted)


def test_wheels_of_older_systems_run_on_newer_ones() -> None:
    tags = platform_tags(ORIN, "a board")
    assert tags[0] == "manylinux_2_35_aarch64"
    assert {"manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"} <= {*tags}
    assert "manylinux_2_36_aarch64" not in tags


@pytest.mark.parametrize(
    ("board", "text"),
    [
        (
            Interpreter("3.6.9", "aarch64", "2.27"),
            "has Python 3.6.9; packages need 3.8 or newer, and --bootstrap brings",
        ),
        (Interpreter("3.11.2", "armv7l", "2.36"), "is armv7l; there are wheels for aarch64 and x86_64 alone"),
        (Interpreter("3.12.1", "aarch64", ""), "has no glibc, as on Alpine; ONNX Runtime's wheels need glibc 2.17"),
        (Interpreter("3.8.1", "aarch64", "2.12"), "has glibc 2.12; ONNX Runtime's wheels need glibc 2.17 or newer"),
    ],
)
def test_boards_that_there_are_no_wheels_for_are_told_why(board: Interpreter, text: str) -> None:
    with pytest.raises(BoardUnfit, match=f"^ssh://b {text}"):
        platform_tags(board, "ssh://b")


def put(folder: Path, name: str, data: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    return folder


def test_pip_chooses_from_a_folder_what_fits_the_board_and_not_this_machine(tmp_path: Path) -> None:
    source = put(tmp_path / "wheels", "thing-1.0-cp310-cp310-manylinux_2_28_aarch64.whl", wheel())
    put(source, "thing-1.1-cp310-cp310-manylinux_2_39_aarch64.whl", wheel())
    put(source, "thing-1.2-cp311-cp311-manylinux_2_17_aarch64.whl", wheel())
    put(source, "thing-1.3-cp310-cp310-manylinux_2_17_x86_64.whl", wheel())
    found = fetch_wheels(["thing"], platform_tags(ORIN, "b"), ORIN, tmp_path / "to", source)
    assert [one.path.name for one in found] == ["thing-1.0-cp310-cp310-manylinux_2_28_aarch64.whl"]
    assert Bootstrap(("thing",), found).versions == {"thing": "1.0"}
    assert Bootstrap(("thing",), found).describe().startswith("thing 1.0 (0.0 MiB)")
    with pytest.raises(match=r"on manylinux_2_35_aarch64: .*wheels has none: .*other.*--wheels DIR"):
        fetch_wheels(["other"], platform_tags(ORIN, "b"), ORIN, tmp_path / "to", source)


def test_what_this_machine_lacks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"--wheels .*none: no such folder"):
        fetch_wheels(["thing"], ["x"], ORIN, tmp_path, tmp_path / "none")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EnvironmentMissing, match=r"has no pip, which chooses wheels .*: python -m ensurepip"):
        fetch_wheels(["thing"], ["x"], ORIN, tmp_path)


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    """Of a board whose ``onnxruntime`` is a wheel that imports."""
    board = FakeBoard(tmp_path / "board", monkeypatch)
    with board.connection() as connection:
        agent = Agent(connection, "~/x")
        agent.ask("lock", token="t", who="ann", purpose="pushes", since="12:00", owner={})
        yield agent


def bundle(folder: Path, **files: bytes) -> Bootstrap:
    """A wheel of a library that packages run on, as it was chosen."""
    name = f"onnxruntime-1.0-{HERE}.whl"
    data = wheel({**FILES, **{f"{module}.py": text for module, text in files.items()}})
    return Bootstrap(("onnxruntime",), (Wheel(put(folder, name, data) / name, hashlib.sha256(data).hexdigest()),))


def test_what_came_is_tried_and_then_used(agent: Agent, tmp_path: Path) -> None:
    heard: list[float] = []
    chosen = bundle(tmp_path / "w", onnxruntime=b"VERSION = 7\n")
    brought = bring(agent, "t", chosen, lambda *told: heard.append(told[0]))
    code = "import onnxruntime; print(onnxruntime.VERSION)"
    assert agent.connection.run([brought.python, "-c", code]).stdout == b"7\n"
    assert (brought.versions, brought.bytes_sent == heard[-1]) == ({"onnxruntime": "1.0"}, True)
    assert agent.facts().executable != brought.python.replace("bin/python", "bin/python3")
    assert bring(agent, "t", chosen).bytes_sent == 0
    used = use(agent, "t", brought)
    assert agent.connection.run([used, "-c", code]).stdout == b"7\n"
    assert agent.facts().executable == used.replace("bin/python", "bin/python3")


def test_a_library_that_does_not_run_there_is_not_used(agent: Agent, tmp_path: Path) -> None:
    first = bring(agent, "t", bundle(tmp_path / "w", onnxruntime=b"VERSION = 1\n"))
    broken = bundle(tmp_path / "v", onnxruntime=b"raise ImportError('no dot product')\n")
    with pytest.raises(BoardUnfit, match=r"onnxruntime came whole and cannot be imported .*no dot product"):
        bring(agent, "t", broken)
    code = "import onnxruntime; print(onnxruntime.VERSION)"
    assert agent.connection.run([first.python, "-c", code]).stdout == b"1\n"


def test_a_board_that_has_all_is_asked_for_nothing(agent: Agent, tmp_path: Path) -> None:
    facts = agent.facts()
    here = {name for name in facts.versions if name in ("numpy", "onnxruntime", "pillow")}
    assert here == {"numpy", "onnxruntime", "pillow"}
    house = Wheelhouse(tmp_path)
    assert house.choose("a board", facts, ["pillow"]) == Bootstrap(())
    old = BoardFacts(**{**{f: getattr(facts, f) for f in facts.__struct_fields__}, "versions": {"python": "3.7.1"}})
    with pytest.raises(BoardUnfit, match=r"ssh://user@board has Python 3\.7\.1"):
        house.choose(agent.connection.name, old, [])


def test_a_wheel_that_is_damaged_on_the_way_is_not_unpacked(agent: Agent, tmp_path: Path) -> None:
    chosen = bundle(tmp_path / "w", onnxruntime=b"")
    with zipfile.ZipFile(chosen.wheels[0].path, "a") as archive:
        archive.writestr("evil.py", "")
    with pytest.raises(BoardError, match="arrived with other bytes than it had here"):
        bring(agent, "t", chosen)
