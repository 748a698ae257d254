"""The ``.dlx`` container: a zip whose every member is listed, with size and SHA-256, in its ``package.json``.

Nothing is ever extracted to disk: members are read into memory and checked there. The digests find damage; they do
not show who made a package (whoever can rewrite a member can rewrite its digest), which a signature does (``trust``).
"""

from __future__ import annotations

import io
import json
import os
import stat
from typing import TYPE_CHECKING, Callable, Dict, Mapping, Optional, Tuple

from ..code_cache import kept_digest
from ..digests import sha256_hex
from ..errors import PackageError
from ..files import PathLike, TooLarge, read_file, reason, write_atomically
from ..inside import is_own_package
from ..schemas import PACKAGE as SCHEMA
from ..schemas import newer_schema
from ..strict_json import from_json
from ..untyped import JsonTable
from ..words import shortened
from .trust import Signed, Trust, trust_of_machine
from .unzip import MAX_BYTES, check_name, read_members

if TYPE_CHECKING:
    import zipfile

__all__ = [
    "INDEX",
    "parse_archive",
    "read_archive",
    "read_bytes",
    "read_index",
    "read_signed",
    "to_json",
    "write_archive",
]

INDEX = "package.json"
MAX_INDEX = 16 * 1024**2
MAX_MEMBERS = 10_000
MODE = 0o644  # of every member, and of the file
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold
Digest = Callable[[str, bytes], str]


def _digest(member: str, data: bytes) -> str:
    return sha256_hex(data)


def to_json(value: object) -> bytes:
    """``value`` as canonical JSON: sorted keys, UTF-8, newline at the end."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")


def write_archive(path: PathLike, files: Mapping[str, bytes], deflate: bool = False) -> None:
    """Writes ``files`` as a zip at ``path``, all or nothing; the same files give the same bytes.

    Members are stored, so the bytes depend on nothing else; ``deflate`` makes the file smaller, and its bytes then
    also depend on the zlib of this Python. ``package.json`` comes first, the others sorted.

    Raises:
        PackageError: a member's name is not a safe relative path, or there are too many bytes for a reader.
        OSError: the disk is full or not writable; ``path`` is then as it was before.
    """
    import zipfile  # who reads needs none

    total = sum(map(len, files.values()))
    if total > MAX_BYTES:
        raise PackageError(f"{os.fspath(path)}: its members have {total} bytes; a package has at most {MAX_BYTES}")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(files, key=lambda n: (n != INDEX, n)):
            check_name(os.fspath(path), name)
            archive.writestr(_header(name), files[name], zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED, 9)
    write_atomically(path, buffer.getvalue(), MODE)


def read_archive(path: PathLike, trust: Optional[Trust] = None) -> Dict[str, bytes]:
    """Every member of the package at ``path``, by name, each one's size and digest checked.

    Raises:
        PackageError, InputError, BackendMissing: as ``read_signed``.
    """
    return read_signed(path, trust)[0]


def read_signed(path: PathLike, trust: Optional[Trust] = None) -> Tuple[Dict[str, bytes], Optional[Signed]]:
    """As ``read_archive``, and who signed the package, where ``trust`` or the machine asks for a signature.

    It is verified first, over the very bytes that are then parsed.

    Raises:
        PackageError: no such file, a signature that is not a trusted one's, or any of the reasons of ``parse_archive``.
        InputError, BackendMissing: as ``Trust.verify``.
    """
    name, data = os.fspath(path), read_bytes(path)
    trust = trust or trust_of_machine()
    signed = trust.verify(data, name) if trust else None
    return parse_archive(data, name, kept_digest if not trust and is_own_package(path) else _digest), signed


def read_bytes(path: PathLike) -> bytes:
    """The package at ``path`` as it lies there; nothing of it is checked.

    Raises:
        PackageError: no such file, too large, or it cannot be read.
    """
    name = os.fspath(path)
    try:
        return read_file(name, MAX_BYTES)
    except FileNotFoundError as e:
        raise PackageError(f"{name}: no such file; give the path of a .dlx package") from e
    except TooLarge as e:
        raise PackageError(f"{name}: has {e} bytes; a package has at most {MAX_BYTES}") from e
    except (OSError, ValueError) as e:
        raise PackageError(f"{name}: cannot be read ({reason(e)})") from e


def parse_archive(data: bytes, origin: str, digest: Digest = _digest) -> Dict[str, bytes]:
    """As ``read_archive``, for bytes in memory; ``origin`` names them in messages, ``digest`` gives a member's SHA-256.

    Raises:
        PackageError: not a zip or cut short; no ``package.json``; a newer schema; an unsafe, doubled, encrypted or
            linked member; a member that is not listed, or listed and missing; a size or digest that differs.
    """
    files = read_members(data, origin, MAX_MEMBERS)
    if INDEX not in files:
        raise PackageError(f"{origin}: a zip without {INDEX}, so no dlx package; build one with: dlx-deploy build")
    _check_digests(origin, read_index(origin, files[INDEX])["files"], files, digest)
    return files


def _header(name: str) -> zipfile.ZipInfo:
    from zipfile import ZipInfo

    info = ZipInfo(name, EPOCH)
    info.create_system = 3  # Unix on every host, so that the bytes do not depend on it
    info.external_attr = (stat.S_IFREG | MODE) << 16
    return info


def read_index(origin: str, index: bytes) -> JsonTable:
    """What ``package.json`` holds, its schema checked first.

    Raises:
        PackageError: no JSON, a newer schema, or no table of files.
    """
    if len(index) > MAX_INDEX:
        raise PackageError(f"{origin}: {INDEX} has {len(index)} bytes; at most {MAX_INDEX} are read")
    try:
        meta = from_json(index)
    except ValueError as e:
        raise PackageError(f"{origin}: {INDEX} is not JSON ({e})") from e
    table: JsonTable = meta if isinstance(meta, dict) else {}
    schema = table.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise PackageError(
            f"{origin}: {INDEX}: schema is {shortened(schema)}; must be a whole number from 1, so no dlx package"
        )
    remedy = f"use a newer dlx-deploy, or the runtime inside: python {os.path.basename(origin)}"
    refusal = newer_schema(schema, SCHEMA, remedy)
    if refusal:
        raise PackageError(f"{origin}: {INDEX}: {refusal}")
    if not isinstance(table.get("files"), dict):
        raise PackageError(
            f"{origin}: {INDEX}: files is {shortened(table.get('files'))}; must be a table of name: {{sha256, size}}"
        )
    return table


def _check_digests(origin: str, listed: JsonTable, files: Mapping[str, bytes], digest_of: Digest) -> None:
    present = set(files) - {INDEX}
    for name in sorted(set(listed) - present):
        raise PackageError(f"{origin}: {name!r} is listed in {INDEX} but missing; the package is incomplete")
    for name in sorted(present - set(listed)):
        raise PackageError(f"{origin}: {name!r} is not listed in {INDEX}; the package was changed after it was built")
    for name in sorted(present):
        entry = listed[name] if isinstance(listed[name], dict) else {}
        size, digest = len(files[name]), digest_of(name, files[name])
        if entry.get("size") != size:
            raise PackageError(
                f"{origin}: {name!r} has {size} bytes, {INDEX} says {shortened(entry.get('size'))}; tampered with?"
            )
        if entry.get("sha256") != digest:
            raise PackageError(
                f"{origin}: {name!r} has SHA-256 {digest}, {INDEX} says {shortened(entry.get('sha256'))}; tampered "
                "with?"
            )
