"""Compiled code that is kept between starts: it saves compiling, and is never of another source or another user."""

from __future__ import annotations

import hashlib
import importlib
import marshal
import os
import re
import subprocess
import sys
import time
import traceback
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from zipimport import zipimporter

import pytest

from dlx_deploy.runtime import code_cache, code_saving, kept_code
from dlx_deploy.runtime.sources import own_sources

from ..interpreters import Absent, find_python

NAME = "kept_example"
SUMS = "def total():\n    return 1\n\n\ndef fail():\n    raise ValueError  # the line that is shown\n"
SOURCES = {"__init__.py": "", "sums.py": SUMS, "more/__init__.py": "VALUE = 2\n"}
Start = Callable[..., "tuple[ModuleType, list[str]]"]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Imports the example as a new process would, and ends: gives its modules, and what had to be compiled."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "x.dlx"))

    def call(harm: Callable[[Path], None] = Path.stat, **changed: str) -> tuple[ModuleType, list[str]]:
        path, compiled, at_exit = tmp_path / "x.dlx", [], []
        with zipfile.ZipFile(path, "w") as archive:
            for name, source in {**SOURCES, **changed}.items():
                archive.writestr(f"{NAME}/{name}", source)
        harm(path)

        def spied(source: bytes, name: str, *rest: Any, **more: Any) -> Any:
            compiled.append(name)
            return compile(source, name, *rest, **more)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "meta_path", list(sys.meta_path))
            patch.setattr(kept_code, "compile", spied, raising=False)
            patch.setattr(code_cache, "atexit", SimpleNamespace(register=lambda *call: at_exit.append(partial(*call))))
            for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
                patch.delitem(sys.modules, name)
            importlib.invalidate_caches()
            package = importlib.import_module(NAME)
            code_cache.keep_compiled(NAME, kept_code.Kept(zipimporter(package.__path__[0])))
            importlib.import_module(f"{NAME}.more")
            module = importlib.import_module(f"{NAME}.sums")
            for save in at_exit:
                save()
            for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
                sys.modules.pop(name)
        return module, compiled

    return call


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("*.code"))


def test_the_second_start_compiles_nothing(start: Start, tmp_path: Path) -> None:
    assert start()[1] == [f"{NAME}/more/__init__.py", f"{NAME}/sums.py"]
    (file,) = kept(tmp_path)
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    module, compiled = start()
    assert (compiled, module.total()) == ([], 1)


def test_a_changed_source_is_compiled_and_runs(start: Start) -> None:
    start()
    module, compiled = start(**{"sums.py": "def total():\n    return 7\n"})
    assert (compiled[-1], module.total()) == (f"{NAME}/sums.py", 7)


def test_a_source_whose_bytes_are_not_those_of_the_directory_is_not_remembered(start: Start, tmp_path: Path) -> None:
    def damage(archive: Path) -> None:
        archive.write_bytes(archive.read_bytes().replace(b"return 1", b"return 2"))  # the directory's CRC-32 is the old

    module, _ = start(harm=damage)
    assert module.total() == 2  # as Python imports it; who opens the package is told that it is damaged
    module, compiled = start()
    assert (compiled, module.total()) == ([f"{NAME}/sums.py"], 1)


def test_nothing_is_kept_where_pythons_importer_does_not_say_which_source_it_has(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_code, "DIRECTORIES", {})
    assert len(start()[1]) == len(start()[1]) == 2


def test_packages_of_one_runtime_share_its_code(tmp_path: Path) -> None:
    env = {**{k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}, "XDG_CACHE_HOME": str(tmp_path)}
    compiled = []
    for weights in ("one", "another"):
        with zipfile.ZipFile(tmp_path / "x.dlx", "w") as archive:
            archive.writestr("package.json", weights)
            for name, source in own_sources().items():
                archive.writestr(f"dlx_runtime/{name}", source)
        done = subprocess.run([sys.executable, "-c", OTHER], cwd=tmp_path, env=env, capture_output=True, check=True)
        compiled.append(len(done.stdout.split()))
    assert (compiled[0] > 2, compiled[1]) == (True, 0)
    assert len(list((tmp_path / "dlx-deploy" / "code").iterdir())) == 1


def test_modules_are_as_python_imports_them(start: Start, tmp_path: Path) -> None:
    start()
    module, _ = start()
    archive = str(tmp_path / "x.dlx")
    assert module.__file__ == os.path.join(archive, NAME, "sums.py")
    assert (module.__package__, module.__loader__.archive) == (NAME, archive)  # type: ignore[union-attr]
    with pytest.raises(ValueError) as caught:
        module.fail()
    told = "".join(traceback.format_exception(caught.type, caught.value, caught.tb))
    assert f'File "{NAME}/sums.py", line 6, in fail\n    raise ValueError  # the line that is shown' in told
    data = module.__loader__.get_data(os.path.join(archive, NAME, "sums.py"))  # type: ignore[union-attr]
    assert data == SUMS.encode()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def changed(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-10] ^= 1
    file.write_bytes(data)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def linked(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to(file.with_name("elsewhere"))


def open_to_all(file: Path) -> None:
    file.chmod(0o666)


@pytest.mark.parametrize("harm", [cut, changed, empty, linked, open_to_all])
def test_a_file_that_is_damaged_or_not_this_users_alone_is_written_anew(
    start: Start, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    start()
    (file,) = kept(tmp_path)
    harm(file)
    assert len(start()[1]) == 2
    assert not file.is_symlink()
    assert start()[1] == []


def folder_open_to_all(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o777)


def folder_linked(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "elsewhere")


def folder_is_a_file(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.touch()


@pytest.mark.parametrize("make", [folder_open_to_all, folder_linked, folder_is_a_file])
def test_a_folder_that_others_can_write_to_is_not_used(
    start: Start, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "cache" / "dlx-deploy" / "code")
    assert len(start()[1]) == len(start()[1]) == 2
    assert kept(tmp_path) == []


def test_nothing_is_made_below_another_users_folder(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert len(start()[1]) == 2
    assert not (tmp_path / "cache").exists()


def test_nothing_is_written_where_python_writes_no_code(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    start()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("fault", [ImportError("no module"), zlib.error("incorrect header check"), TypeError()])
def test_a_package_that_was_removed_or_replaced_meanwhile_ends_well(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    class Gone(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise fault

    monkeypatch.setitem(sys.modules, code_saving.__name__, Gone(code_saving.__name__))
    assert len(start()[1]) == 2
    assert kept(tmp_path) == []


def test_code_of_another_bytecode_is_not_taken(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    start()
    monkeypatch.setattr(kept_code, "MAGIC_NUMBER", b"\x01\x02\r\n")
    assert len(start()[1]) == 2
    assert start()[1] == []


def test_there_is_no_folder_in_isolated_mode_or_at_a_relative_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert kept_code.kept_folder() is None
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert kept_code.kept_folder() == "/cache/dlx-deploy/code"
    monkeypatch.setattr(kept_code, "sys", SimpleNamespace(flags=SimpleNamespace(isolated=1)))
    assert kept_code.kept_folder() is None


def test_the_newest_files_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_saving, "MOST_FILES", 2)
    folder = tmp_path / "code"
    for age, name in ((3, "a.code"), (2, "b.code"), (1, "c.code")):
        code_saving.save_code(str(folder), name, {}, {})
        if (folder / name).exists():
            os.utime(folder / name, (time.time() - age, time.time() - age))
    assert sorted(path.name for path in folder.iterdir()) == ["b.code", "c.code"]


COUNTED = """
import runpy, sys
compiled = []
sys.addaudithook(lambda event, args: compiled.append(args[1]) if event == "compile" else None)
sys.argv = ["x.dlx", "predict", "dog.png"]
try:
    runpy.run_path("x.dlx", run_name="__main__")
finally:
    print(*sorted(name for name in compiled if "dlx_runtime" in str(name)), file=sys.stderr)
"""


def test_a_package_compiles_its_first_modules_alone_when_started_again(dlx: Path, data: Any, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "x.dlx").write_bytes(dlx.read_bytes())
    Image.fromarray(data[0][1]).save(tmp_path / "dog.png")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV"))}
    env["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    seen = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", COUNTED], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith("dog.png\tdog")
        seen.append([name.partition("dlx_runtime/")[2] for name in done.stderr.split()])
    assert len(seen[0]) > 30
    assert sorted(name for name in seen[1] if name != "__init__.py") == ["kept_code.py"]  # each once


DIGESTED = """
import sys
sys.path.insert(0, "x.dlx")
from dlx_runtime import digests, errors
from dlx_runtime.package import archive
counted = digests._digest
seen = []
digests._digest = lambda data: seen.append(len(data)) or counted(data)
class Trust:
    def verify(self, data, package):
        return None
try:
    archive.read_signed(sys.argv[1], Trust() if sys.argv[2:] else None)
    print(sum(seen))
except errors.PackageError as e:
    print(e)
"""


def rewritten(package: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    """The package as somebody has it who changed one member, its CRC-32 too."""
    with zipfile.ZipFile(package) as archive:
        files = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(package, "w") as archive:
        for member, data in files.items():
            archive.writestr(member, change(data) if member == name else data)


def test_sources_are_digested_once_and_held_against_the_package_each_time(dlx: Path, tmp_path: Path) -> None:
    (tmp_path / "x.dlx").write_bytes(dlx.read_bytes())
    (tmp_path / "y.dlx").write_bytes(dlx.read_bytes())
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV"))}
    env["XDG_CACHE_HOME"] = str(tmp_path / "cache")

    def opened(*argv: str) -> str:
        command = [sys.executable, "-c", DIGESTED, *argv]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout

    with zipfile.ZipFile(dlx) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist() if info.filename != "package.json"}
    everything, others = sum(sizes.values()), sum(n for name, n in sizes.items() if not name.startswith("dlx_runtime/"))
    assert int(opened("x.dlx")) == everything
    assert int(opened("x.dlx")) == others
    assert int(opened("x.dlx", "trusted")) == int(opened("y.dlx")) == everything  # another's code runs nowhere here
    package, source = tmp_path / "x.dlx", "dlx_runtime/pace.py"
    rewritten(package, source, lambda data: data.replace(b"a", b"e", 1))
    assert f"{source!r} has SHA-256" in opened("x.dlx")
    package.write_bytes(dlx.read_bytes())
    assert int(opened("x.dlx")) == others
    mixed_up = rf'("{source}": {{\s*"sha256": ")....'.encode()
    rewritten(package, "package.json", lambda data: re.sub(mixed_up, rb"\g<1>0000", data))
    assert f"{source!r} has SHA-256" in opened("x.dlx")


def test_a_kept_digest_is_that_of_the_same_name_crc_and_length(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: Any = SimpleNamespace(old={}, new={})
    monkeypatch.setattr(sys, "meta_path", [code_cache._Finder("example", kept)])
    assert code_cache.kept_digest("example/a.py", b"one") == hashlib.sha256(b"one").hexdigest()
    kept.old = {mark: marshal.dumps("kept") for mark in kept.new}
    assert code_cache.kept_digest("example/a.py", b"one") == "kept"
    for member, data in (("example/a.py", b"two"), ("example/b.py", b"one"), ("model.onnx", b"one")):
        assert code_cache.kept_digest(member, data) == hashlib.sha256(data).hexdigest()


OTHER = """
import sys
sys.path.insert(0, "x.dlx")
compiled = []
sys.addaudithook(lambda event, args: compiled.append(str(args[1])) if event == "compile" else None)
import dlx_runtime.errors, dlx_runtime.words
print(*(name for name in compiled if name.startswith("dlx_runtime/")))
"""


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14"])
def test_every_python_keeps_code(version: str, tmp_path: Path) -> None:
    try:
        python = find_python(version)
    except Absent as e:
        pytest.skip(f"not run on Python {version}: {e}")
    with zipfile.ZipFile(tmp_path / "x.dlx", "w") as archive:
        archive.writestr("package.json", "{}")
        for name, source in own_sources().items():
            archive.writestr(f"dlx_runtime/{name}", source)
    env = {**{k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}, "XDG_CACHE_HOME": str(tmp_path)}
    starts = [
        subprocess.run([python, "-c", OTHER], cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert [text.split() for text in starts] == [
        [f"dlx_runtime/{name}.py" for name in ("code_cache", "exports", "errors", "words")],
        [],
    ]
