"""The members of a zip in memory, read so that no claim of the zip is believed: sizes, places and counts are checked.

Python's ``zipfile`` is not for this: ``ZipFile.read`` inflates a member whole before it looks at its size, and it reads
as many entries as the directory holds.
"""

from __future__ import annotations

import stat
import string
import struct
import zlib
from typing import Dict, List, Tuple

from ..errors import PackageError
from .zip_directory import DEFLATED, END_SIZE, STORED, Member, list_members

__all__ = ["MAX_BYTES", "check_name", "read_members"]

MAX_BYTES = 2 * 1024**3  # of the file, and of all members together: ONNX's own limit for one model
MAX_ENTRY = 512  # bytes of a member's entry in the directory: 46 and its name
MAX_EXPANSION = 64  # text deflates about 4 times; more than this is a bomb
SAFE = frozenset(string.ascii_letters + string.digits + "._-")  # of which parts of a name are made
END = b"PK\x05\x06"
LOCATOR, LOCATOR_SIZE = b"PK\x06\x07", 20  # of ZIP64
LOCAL, LOCAL_SIZE = b"PK\x03\x04", 30


def read_members(data: bytes, origin: str, most: int) -> Dict[str, bytes]:
    """Every member of the zip ``data``, by name, at most ``most``; ``origin`` names it in messages.

    Raises:
        PackageError: not a zip or cut short; too many or too large members; an unsafe, doubled, encrypted, linked,
            damaged or overlapping member, or one that inflates to another size than it claims.
    """
    try:
        _check_directory(data, origin, most)
        members = list_members(data)
    except ValueError as e:
        raise PackageError(
            f"{origin}: not a readable zip ({e}): cut short, damaged, or no dlx package ({len(data)} bytes); "
            "copy or download it again"
        ) from e
    _check_members(origin, members, len(data), most)
    places = [_place(origin, data, member) for member in members]
    _check_overlaps(origin, members, places)
    return {member.name: _member(origin, data, member, places[i]) for i, member in enumerate(members)}


def check_name(origin: str, name: str) -> None:
    """Refuses a member's name that is not a safe relative path.

    Raises:
        PackageError: it has other characters, is absolute, or steps up.
    """
    if not all(SAFE.issuperset(part) and part not in ("", ".", "..") for part in name.split("/")):
        raise PackageError(
            f"{origin}: unsafe member name {name[:200]!r}; names are relative, of letters, digits and ._- joined by /, "
            "without . or .. as a part"
        )


def _check_directory(data: bytes, origin: str, most: int) -> None:
    """That the directory is of a size which is safe to parse, before that is done."""
    end = data[-END_SIZE:]
    if len(end) < END_SIZE or end[:4] != END or end[-2:] != b"\0\0":
        raise ValueError("no end of a zip, or a comment after it")
    if data[-END_SIZE - LOCATOR_SIZE :][:4] == LOCATOR:
        raise ValueError("a ZIP64 directory, which no package needs")
    (size,) = struct.unpack_from("<I", end, 12)
    if size > MAX_ENTRY * most:
        raise PackageError(
            f"{origin}: the zip's directory has {size} bytes; at most {MAX_ENTRY * most}, of {most} members"
        )


def _check_members(origin: str, members: List[Member], size: int, most: int) -> None:
    if len(members) > most:
        raise PackageError(f"{origin}: has {len(members)} members; at most {most} are read")
    seen = set()
    for member in members:
        check_name(origin, member.name)
        if member.name in seen:
            raise PackageError(f"{origin}: member {member.name!r} is there twice; refused")
        seen.add(member.name)
        _check_kind(origin, member)
    total = sum(member.size for member in members)
    if total > min(MAX_BYTES, MAX_EXPANSION * size):
        raise PackageError(
            f"{origin}: {size} bytes claim to hold {total}; at most {MAX_EXPANSION} times the file and {MAX_BYTES} "
            "bytes are read"
        )


def _check_kind(origin: str, member: Member) -> None:
    if member.flags & 0x1:
        raise PackageError(f"{origin}: member {member.name!r} is encrypted; packages are never encrypted")
    if stat.S_IFMT(member.attributes >> 16) not in (0, stat.S_IFREG):
        raise PackageError(f"{origin}: member {member.name!r} is a link or special file; only plain files are read")
    if member.method not in (STORED, DEFLATED):
        raise PackageError(
            f"{origin}: member {member.name!r} uses compression method {member.method}; stored (0) and "
            "deflated (8) are read"
        )


def _place(origin: str, data: bytes, member: Member) -> Tuple[int, int, int]:
    """Where the member's header starts, and its bytes start and end, in ``data``."""
    start = member.offset
    header = data[start : start + LOCAL_SIZE] if start >= 0 else b""
    if len(header) < LOCAL_SIZE or header[:4] != LOCAL:
        raise _damaged(origin, member, "its header is not where the directory says")
    name, extra = struct.unpack_from("<HH", header, 26)
    if data[start + LOCAL_SIZE : start + LOCAL_SIZE + name] != member.raw_name:
        raise _damaged(origin, member, "its header has another name than the directory")
    first = start + LOCAL_SIZE + name + extra
    if first + member.compressed > len(data):
        raise _damaged(origin, member, "cut short")
    return start, first, first + member.compressed


def _check_overlaps(origin: str, members: List[Member], places: List[Tuple[int, int, int]]) -> None:
    """Members that share bytes are how a small zip becomes a large one without being deflated much."""
    order = sorted(range(len(members)), key=lambda i: places[i])
    for i, j in zip(order, order[1:]):
        if places[j][0] < places[i][2]:
            raise PackageError(
                f"{origin}: members {members[i].name!r} and {members[j].name!r} overlap in the zip; refused"
            )


def _member(origin: str, data: bytes, member: Member, place: Tuple[int, int, int]) -> bytes:
    _, first, last = place
    content = data[first:last]
    if member.method == DEFLATED:
        content = _inflated(origin, content, member)
    if len(content) != member.size:
        raise _damaged(origin, member, f"{len(content)} bytes, and the directory says {member.size}")
    if zlib.crc32(content) != member.crc:
        raise _damaged(origin, member, "Bad CRC-32")
    return content


def _inflated(origin: str, deflated: bytes, member: Member) -> bytes:
    """What ``deflated`` holds; one byte more than the member claims is enough to know that it lies."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(deflated, member.size + 1)
    except zlib.error as e:
        raise _damaged(origin, member, str(e)) from e
    if len(content) > member.size:
        raise _damaged(origin, member, f"it inflates to more than the {member.size} bytes that it claims")
    if not inflater.eof or inflater.unused_data:
        raise _damaged(origin, member, "its deflated bytes do not end where the directory says")
    return content


def _damaged(origin: str, member: Member, why: str) -> PackageError:
    return PackageError(f"{origin}: member {member.name!r} is damaged ({why}); copy or download it again")
