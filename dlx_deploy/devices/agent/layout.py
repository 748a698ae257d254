"""What lies below the folder of a package on a board. The link is the truth, and the rest is read by it."""

import os
import re
from typing import List, Optional

from .files import Refusal, Table, read_table

__all__ = [
    "CURRENT",
    "HISTORY",
    "NEW",
    "PACKAGE",
    "RECORD",
    "before_current",
    "current_of",
    "folder_of",
    "history_of",
    "installed_in",
    "is_usable",
    "known_record",
    "new_package",
    "next_number",
    "number_of",
    "package_of",
    "told_of",
]

PACKAGE, RECORD = "package.dlx", "release.json"
CURRENT, HISTORY, NEW = "current", "history.json", ".new-"


def current_of(root: str) -> Optional[str]:
    """The digest of the release that is current; ``None``: there is none."""
    try:
        digest = os.path.basename(os.readlink(os.path.join(root, CURRENT)))
    except OSError:
        return None
    return digest if re.match(r"[0-9a-f]{64}\Z", digest) else None


def history_of(root: str) -> List[str]:
    """What current was, the newest last: it ends with what it is."""
    now, told = current_of(root), read_table(os.path.join(root, HISTORY)).get("current")
    history = [one for one in told if isinstance(one, str)] if isinstance(told, list) else []
    if now is None:
        return []
    if now not in history:
        return [*history, now]
    return history[: len(history) - history[::-1].index(now)]


def before_current(root: str) -> Optional[str]:
    """The digest of the release that was current before, and could be again."""
    now = current_of(root)
    earlier = [one for one in history_of(root)[:-1] if one != now and is_usable(root, one)]
    return earlier[-1] if earlier else None


def is_usable(root: str, digest: str) -> bool:
    """Whether the release is there, and its checks passed."""
    return read_table(os.path.join(folder_of(root, digest), RECORD)).get("state") == "passed"


def installed_in(root: str) -> List[str]:
    """The digests of all releases, the newest first."""
    try:
        names = os.listdir(os.path.join(root, "releases"))
    except OSError:
        return []
    return sorted((n for n in names if re.match(r"[0-9a-f]{64}\Z", n)), key=lambda n: -number_of(root, n))


def number_of(root: str, digest: str) -> int:
    """The place of a release in the order in which they came: clocks of boards go wrong, counting does not."""
    number = read_table(os.path.join(folder_of(root, digest), RECORD)).get("number")
    return number if isinstance(number, int) else 0


def next_number(root: str) -> int:
    """The number of a release that comes now."""
    return 1 + max([0, *(number_of(root, one) for one in installed_in(root))])


def known_record(root: str, digest: str) -> Table:
    """The record of a release.

    Raises:
        Refusal: there is none.
    """
    record = read_table(os.path.join(folder_of(root, digest), RECORD))
    if not record:
        raise Refusal("no-release", "%s has no release %s; push it" % (root, digest))
    return record


def told_of(root: str, digest: str) -> Table:
    """The record of a release, with its digest in any case."""
    return dict(read_table(os.path.join(folder_of(root, digest), RECORD)), digest=digest)


def folder_of(root: str, digest: str) -> str:
    """The folder of a release."""
    return os.path.join(root, "releases", digest)


def package_of(root: str, digest: str) -> str:
    """The package of a release."""
    return os.path.join(folder_of(root, digest), PACKAGE)


def new_package(root: str, digest: str) -> str:
    """The package of a release that is being made."""
    return os.path.join(root, "releases", NEW + digest, PACKAGE)
