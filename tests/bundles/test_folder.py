"""Bundles are written whole or not at all, the same each time, and over nothing but an older one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dlx_deploy.bundles import folder as rooms
from dlx_deploy.bundles.bundle import export_bundle
from dlx_deploy.bundles.folder import INDEX, write_folder
from dlx_deploy.errors import ConfigError
from tests.bundles.packages import classes, written

OTHER = r"bundle\.json is another program's, or was changed since it was written"
FILES = {"a.txt": b"one", "1/b.bin": b"two"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_package_gives_the_same_bytes(tmp_path: Path) -> None:
    path = written(tmp_path, classes())
    views = [export_bundle(path, "triton", tmp_path / name) for name in ("a", "b", "a")]
    assert contents(views[0].folder) == contents(views[1].folder)
    assert INDEX in contents(views[0].folder)


def test_an_older_bundle_is_replaced_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    write_folder(out, FILES, {"format": "x"})
    write_folder(out, {"c.txt": b"three"}, {"format": "x"})
    assert set(contents(out)) == {"c.txt", INDEX}
    assert os.listdir(out.parent) == ["out"]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda out: (out / "mine.txt").write_text("x"), r"'mine\.txt' is not of a bundle"),
        (lambda out: (out / "mine").mkdir(), r"'mine' is not of a bundle"),
        (lambda out: (out / "a.txt").write_text("edited"), r"'a\.txt' was changed since it was written"),
        (
            lambda out: ((out / "a.txt").unlink(), (out / "a.txt").symlink_to("/etc/hostname")),
            r"'a\.txt' was changed .*",
        ),
        (lambda out: (out / INDEX).write_text('{"schema": 2, "files": {}}'), OTHER),
        (lambda out: (out / INDEX).write_text((out / INDEX).read_text() + "\n"), OTHER),
        (lambda out: (out / INDEX).write_text((out / INDEX).read_text().replace('"b"', '"a"')), OTHER),
        (lambda out: (out / INDEX).write_text('{"schema": 1, "files": {"\\ud800": ""}}'), OTHER),
        (lambda out: (out / INDEX).unlink(), r"'\S+' is not of a bundle"),
    ],
)
def test_what_was_not_written_here_is_not_replaced(tmp_path: Path, spoil: object, why: str) -> None:
    out = tmp_path / "out"
    write_folder(out, FILES, {"of": "b"})
    spoil(out)  # type: ignore[operator]
    before = contents(out)
    with pytest.raises(ConfigError, match=rf"out: {why}, and would be lost; name another folder with --out"):
        write_folder(out, {"c.txt": b"three"}, {})
    assert contents(out) == before
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("theirs", ["{}", '{"name": "theirs"}', '{"schema": 1, "files": {}}', "no JSON"])
def test_another_programs_bundle_is_kept(tmp_path: Path, theirs: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / INDEX).write_text(theirs)
    with pytest.raises(ConfigError, match=rf"out: {OTHER}, and would be lost"):
        write_folder(tmp_path / "out", FILES, {})
    assert (tmp_path / "out" / INDEX).read_text() == theirs


def test_an_empty_folder_is_used_and_a_file_or_a_link_is_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path / "empty", FILES, {})
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("empty")
    for name in ("file", "link"):
        with pytest.raises(ConfigError, match=rf"{name}: is no folder; name another with --out"):
            write_folder(tmp_path / name, FILES, {})
    with pytest.raises(ConfigError, match=r"file/out: cannot be written \(File exists\); name another"):
        write_folder(tmp_path / "file" / "out", FILES, {})


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_fault_on_the_way_leaves_the_older_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    out = tmp_path / "out"
    write_folder(out, FILES, {})
    before, rename, fsync = contents(out), os.rename, os.fsync

    def failing(source: Path, target: Path) -> None:
        if target == out and not source.name.endswith(".old"):
            raise fault
        rename(source, target)

    def full(handle: int) -> None:
        raise fault

    for name, stand_in in (("rename", failing), ("fsync", full)):
        monkeypatch.setattr(rooms.os, name, stand_in)
        with pytest.raises((KeyboardInterrupt, ConfigError), match=r"^$|cannot be written \(No space left on device\)"):
            write_folder(out, {"c.txt": b"three"}, {})
        monkeypatch.setattr(rooms.os, "rename", rename)
        monkeypatch.setattr(rooms.os, "fsync", fsync)
        assert contents(out) == before
        assert os.listdir(tmp_path) == ["out"]
