"""How large a package may be: what is written, read and inflated, and how many members it has."""

from __future__ import annotations

import contextlib
import struct
import zipfile
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.runtime.errors import PackageError
from dlx_deploy.runtime.package import archive, unzip
from dlx_deploy.runtime.package.archive import parse_archive, read_archive, write_archive

from .zips import FILES, STORED, indexed, written, zipped


def test_file_over_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archive(tmp_path / "x.dlx", FILES)
    monkeypatch.setattr(archive, "MAX_BYTES", 100)
    with pytest.raises(PackageError, match=r"has \d+ bytes; a package has at most 100"):
        read_archive(tmp_path / "x.dlx")


def test_more_than_a_reader_takes_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 100)
    with pytest.raises(PackageError, match=r"its members have \d+ bytes; a package has at most 100"):
        write_archive(tmp_path / "x.dlx", FILES)
    assert list(tmp_path.iterdir()) == []


def test_too_many_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    with pytest.raises(PackageError, match="has 4 members; at most 3 are read"):
        parse_archive(STORED, "x.dlx")


def test_the_limits_themselves_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One less of each is too little: of bytes written, read, inflated, of the index, of members."""
    size, total = len(STORED), sum(map(len, FILES.values()))
    path = tmp_path / "x.dlx"
    for bytes_ in (total, total - 1):
        monkeypatch.setattr(archive, "MAX_BYTES", bytes_)
        with pytest.raises(PackageError, match="members have") if bytes_ < total else contextlib.nullcontext():
            write_archive(path, FILES)
    for module, name, enough, message in [
        (archive, "MAX_BYTES", size, "has .* bytes; a package has at most"),
        (archive, "MAX_INDEX", len(FILES["package.json"]), r"package\.json has \d+ bytes; at most \d+ are read"),
        (archive, "MAX_MEMBERS", len(FILES), "has 4 members; at most 3 are read"),
        (unzip, "MAX_BYTES", total, "claim to hold"),
    ]:
        monkeypatch.setattr(module, name, enough)
        assert read_archive(path) == FILES
        monkeypatch.setattr(module, name, enough - 1)
        with pytest.raises(PackageError, match=message):
            read_archive(path)
        monkeypatch.undo()
    monkeypatch.setattr(unzip, "MAX_EXPANSION", Fraction(total, size))
    assert parse_archive(STORED, "x.dlx") == FILES
    monkeypatch.setattr(unzip, "MAX_EXPANSION", Fraction(total - 1, size))
    with pytest.raises(PackageError, match="claim to hold"):
        parse_archive(STORED, "x.dlx")


def test_the_directory_s_own_limit_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    (size,) = struct.unpack_from("<I", STORED, len(STORED) - 10)
    monkeypatch.setattr(unzip, "MAX_ENTRY", 1)
    assert unzip.read_members(STORED, "x.dlx", size) == FILES
    with pytest.raises(PackageError, match=rf"directory has {size} bytes; at most {size - 1}, of {size - 1} members"):
        unzip.read_members(STORED, "x.dlx", size - 1)


class Claiming(Mapping[str, bytes]):
    """Files of so many bytes, as far as anybody counts them."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1

    def __getitem__(self, name: str) -> Any:
        return Sized(self.size)


class Sized:
    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size


def test_the_limits_are_those_of_the_documents(tmp_path: Path) -> None:
    """docs/package.md: 2 GiB, an index of 16 MiB, 10,000 members, 64 times the file."""
    with pytest.raises(PackageError, match="have 2147483649 bytes; a package has at most 2147483648"):
        write_archive(tmp_path / "x.dlx", Claiming(2 * 1024**3 + 1))
    with pytest.raises(PackageError, match=r"package\.json has 16777217 bytes; at most 16777216 are read"):
        archive.read_index("x.dlx", bytes(16 * 1024**2 + 1))
    many = {f"{i:05}": b"" for i in range(10_000)}
    with pytest.raises(PackageError, match="has 10001 members; at most 10000 are read"):
        parse_archive(written(files=indexed(many)), "x.dlx")
    with pytest.raises(PackageError, match="at most 64 times the file and 2147483648 bytes"):
        parse_archive(zipped([("a", bytes(100_000))], zipfile.ZIP_DEFLATED), "x.dlx")
    names = zipped([("n" * 466, b"")])
    assert list(unzip.read_members(names, "x", 1)) == ["n" * 466]
    with pytest.raises(PackageError, match="directory has 513 bytes; at most 512, of 1 members"):
        unzip.read_members(zipped([("n" * 467, b"")]), "x", 1)
