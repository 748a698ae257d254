"""Libraries that packages need, unpacked from wheels into an environment of Python beside the releases.

    venvs/<id>/             bin/python -> the board's Python, pyvenv.cfg, lib/python3.10/site-packages
    venv -> venvs/<id>      swapped by one rename
    incoming/wheels/<SHA-256>.whl

Nothing is installed system-wide, and neither pip nor ``venv`` has to be there: an environment is a link, two lines and
a folder, and a wheel a zip. Programs that wheels bring (``scripts``) and C headers are left out: packages need neither.
"""

import base64
import csv
import hashlib
import io
import os
import re
import shutil
import stat
import sys
import zipfile
import zlib
from typing import Dict, List, Optional, Tuple

from .files import Refusal, Table, digest_of, field_root, field_text, read_table, settle, write_table
from .lock import guarded

__all__ = ["environment", "use_environment"]

VENV, VENVS, NEW, RECORD = "venv", "venvs", ".new-", "environment.json"
WHEELS = os.path.join("incoming", "wheels")
MOST_BYTES = 4 << 30
"""Of one environment, unpacked: ONNX Runtime and numpy take 0.2 GB."""
SPARE_BYTES = 64 << 20
MOST_WHEELS = 100
CHUNK = 1 << 20
UNSIGNED = ("RECORD", "RECORD.jws", "RECORD.p7s")
"""What a wheel's list of its files leaves out."""


def environment(asked: Table) -> Table:
    """Makes an environment of ``wheels`` (SHA-256 each), whole or not at all; one that is there stays.

    Gives its ``id`` and its ``python``; where wheels are still to be sent, where to (``lacks``: SHA-256 → path).

    Raises:
        Refusal: a wheel is damaged or no wheel, or there is no room.
    """
    root, digests = field_root(asked), _digests(asked)
    name = _name(digests)
    folder = os.path.join(root, VENVS, name)
    answer = {"id": name, "python": os.path.join(folder, "bin", "python"), "lacks": {}, "made": False}  # type: Table
    with guarded(root, field_text(asked, "token")):
        if read_table(os.path.join(folder, RECORD)):
            return answer
        paths = {digest: os.path.join(root, WHEELS, digest + ".whl") for digest in digests}
        lacks = {digest: path for digest, path in paths.items() if digest_of(path) != digest}
        if lacks:
            return dict(answer, lacks=lacks)
        _make(root, name, [paths[digest] for digest in digests])
        return dict(answer, made=True)


def use_environment(asked: Table) -> Table:
    """Makes the environment ``id`` the one that packages run in; all but it and the one before are removed.

    Raises:
        Refusal: there is none.
    """
    root, name = field_root(asked), field_text(asked, "id")
    with guarded(root, field_text(asked, "token")):
        if not re.match(r"[0-9a-f]{16}\Z", name) or not read_table(os.path.join(root, VENVS, name, RECORD)):
            raise Refusal("no-environment", "%s has no environment %r; push with --bootstrap" % (root, name))
        link, aside = os.path.join(root, VENV), os.path.join(root, ".venv")
        before = os.path.basename(os.readlink(link)) if os.path.islink(link) else None
        if os.path.exists(link) and not os.path.islink(link):
            raise Refusal("foreign", "%s is there and no link; move it away, or name another folder" % link)
        if os.path.lexists(aside):
            os.unlink(aside)
        os.symlink(os.path.join(VENVS, name), aside)
        os.replace(aside, link)
        settle(root)
        for other in os.listdir(os.path.join(root, VENVS)):
            if other not in (name, before):
                shutil.rmtree(os.path.join(root, VENVS, other))
        shutil.rmtree(os.path.join(root, WHEELS), ignore_errors=True)
        return {"before": before if before != name else None, "python": os.path.join(link, "bin", "python")}


def _digests(asked: Table) -> List[str]:
    given = asked.get("wheels")
    found = [one for one in given if isinstance(one, str)] if isinstance(given, list) else []
    if not 0 < len(found) <= MOST_WHEELS or not all(re.match(r"[0-9a-f]{64}\Z", one) for one in found):
        raise Refusal("question", "wheels is no list of 1 to %d SHA-256 in hexadecimal" % MOST_WHEELS)
    return sorted(set(found))


def _python() -> str:
    """The board's own interpreter, also where an environment's asks."""
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def _name(digests: List[str]) -> str:
    """Of the same wheels and the same Python it is the same."""
    said = "\n".join([_python(), "%d.%d" % sys.version_info[:2], *digests])
    return hashlib.sha256(said.encode("utf-8")).hexdigest()[:16]


def _make(root: str, name: str, wheels: List[str]) -> None:
    _clear(root)
    new = os.path.join(root, VENVS, NEW + name)
    site = os.path.join(new, "lib", "python%d.%d" % sys.version_info[:2], "site-packages")
    os.makedirs(site)
    try:
        _check_room(root, wheels)
        names = [_unpack(wheel, site, new) for wheel in wheels]
        _link(new)
        write_table(os.path.join(new, RECORD), {"schema": 1, "wheels": sorted(names)})
        folder = os.path.join(root, VENVS, name)
        shutil.rmtree(folder, ignore_errors=True)  # without its record it was never whole
        os.rename(new, folder)
        settle(os.path.join(root, VENVS))
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _clear(root: str) -> None:
    """Removes what pushes have left that failed or were killed: all but what is used and the newest one beside it."""
    folder, link = os.path.join(root, VENVS), os.path.join(root, VENV)
    used = os.path.basename(os.readlink(link)) if os.path.islink(link) else None
    names = [name for name in os.listdir(folder) if name != used] if os.path.isdir(folder) else []
    whole = [name for name in names if not name.startswith(NEW)]
    newest = max(whole, key=lambda name: os.lstat(os.path.join(folder, name)).st_mtime_ns) if whole else None
    for name in names:
        if name != newest:
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def _link(folder: str) -> None:
    """What makes a folder an environment: the interpreter, and the file that Python looks for beside it."""
    python = _python()
    os.makedirs(os.path.join(folder, "bin"))
    for link in ("python", "python3"):
        os.symlink(python, os.path.join(folder, "bin", link))
    lines = ("home = " + os.path.dirname(python), "include-system-site-packages = true", "")  # JetPack's tensorrt
    with open(os.path.join(folder, "pyvenv.cfg"), "w") as f:
        f.write("\n".join(lines))


def _check_room(root: str, wheels: List[str]) -> None:
    need = 0
    for wheel in wheels:
        with _opened(wheel) as archive:
            need += sum(info.file_size for info in archive.infolist())
    disk = os.statvfs(root)
    free = disk.f_bavail * disk.f_frsize
    if need > MOST_BYTES:
        raise Refusal("bad-wheel", "the wheels unpack to %d MiB; at most %d" % (need >> 20, MOST_BYTES >> 20))
    if need + SPARE_BYTES > free:
        text = "%s has %d MiB free, and the libraries take %d MiB; remove what is not needed, or name another folder"
        raise Refusal("no-space", text % (root, free >> 20, (need + SPARE_BYTES) >> 20))


def _opened(path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError) as e:
        raise Refusal("bad-wheel", "%s is no wheel (%s)" % (os.path.basename(path), e))


def _unpack(path: str, site: str, prefix: str) -> str:
    """Puts a wheel's files where they belong, each held against its list of them. Gives its name and version."""
    with _opened(path) as archive:
        lists = [name for name in archive.namelist() if re.match(r"[^/]+\.dist-info/RECORD\Z", name)]
        if len(lists) != 1:
            raise Refusal("bad-wheel", "%s has %d lists of its files (RECORD); a wheel has one" % (path, len(lists)))
        info = os.path.dirname(lists[0])
        unsigned = [info + "/" + one for one in UNSIGNED]
        listed = _listed(archive.read(lists[0]))
        for member in archive.infolist():
            name = member.filename
            if name.endswith("/"):
                continue
            _check_name(name, member)
            digest = listed.pop(name, None)
            if name in unsigned:
                digest = None
            elif digest is None:
                raise Refusal("bad-wheel", "%s holds %r, which its list of files has not" % (info, name))
            place = _place(name, site, prefix)
            if place is not None:
                _copy(archive, member, place, digest)
        lost = [name for name in listed if name not in unsigned]
        if lost:
            raise Refusal("bad-wheel", "%s lacks %r, which its list of files has" % (info, lost[0]))
        return info[: -len(".dist-info")]


def _listed(record: bytes) -> Dict[str, Tuple[str, str]]:
    """Name → algorithm and digest, in the alphabet of RECORD; empty texts where there is none."""
    rows = csv.reader(io.StringIO(record.decode("utf-8", "replace")))
    return {row[0]: (row[1].partition("=")[0], row[1].partition("=")[2]) for row in rows if len(row) >= 2}


def _check_name(name: str, member: zipfile.ZipInfo) -> None:
    parts = name.split("/")
    unsafe = any(ord(c) < 32 or c == "\\" for c in name) or "" in parts or ".." in parts or "." in parts
    if unsafe or stat.S_ISLNK(member.external_attr >> 16):
        raise Refusal("bad-wheel", "a wheel holds %r, which is no file below its folder" % name)


def _place(name: str, site: str, prefix: str) -> Optional[str]:
    """Where a wheel's file goes; ``None``: nowhere."""
    inside = re.match(r"[^/]+\.data/([^/]+)/(.+)\Z", name)
    if not inside:
        return os.path.join(site, name)
    kind, rest = inside.groups()
    folder = {"purelib": site, "platlib": site, "data": prefix}.get(kind)
    return None if folder is None else os.path.join(folder, rest)


def _copy(archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: str, digest: Optional[Tuple[str, str]]) -> None:
    kind, value = digest or ("sha256", "")
    if kind not in ("sha256", "sha384", "sha512"):
        raise Refusal("bad-wheel", "%r is listed with a digest of kind %r" % (member.filename, kind))
    seen = hashlib.new(kind)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    try:
        with archive.open(member) as source, open(place, "xb") as f:
            for chunk in iter(lambda: source.read(CHUNK), b""):
                seen.update(chunk)
                f.write(chunk)
    except FileExistsError:
        raise Refusal("bad-wheel", "two wheels hold %r" % member.filename)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as e:
        raise Refusal("bad-wheel", "%r cannot be unpacked (%s)" % (member.filename, e))
    found = base64.urlsafe_b64encode(seen.digest()).rstrip(b"=").decode("ascii")
    if digest is not None and found != value:
        raise Refusal("bad-wheel", "%r has other bytes than its wheel's list of files says" % member.filename)
    if member.external_attr >> 16 & stat.S_IXUSR:
        os.chmod(place, 0o755)
