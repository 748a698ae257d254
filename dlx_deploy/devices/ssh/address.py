"""Where a board is: ``ssh://user@board:port/path``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.words import line

__all__ = ["Address", "parse_address"]

SCHEME = "ssh://"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
"""What a user or a host is called; a leading hyphen would be an option of ssh."""
IPV6 = re.compile(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9_.\-]+)?")


@dataclass(frozen=True)
class Address:
    """``user`` and ``port`` are ``None`` where ssh's own configuration says them; ``host`` may be a name of it.

    ``path``: a folder there, from the root or, without a leading slash, from the home of the user; empty: not said.
    """

    host: str
    user: str | None = None
    port: int | None = None
    path: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        user, port = f"{self.user}@" if self.user else "", f":{self.port}" if self.port else ""
        path = self.path if self.path.startswith("/") or not self.path else f"/~/{self.path}"
        return f"{SCHEME}{user}{host}{port}{quote(path, safe='/~')}"


def parse_address(text: str) -> Address:
    """The address that ``text`` writes, ``ssh://[user@]host[:port][/path]``; ``/~/path`` is below the user's home.

    Raises:
        ConfigError: it is none: another scheme, a password, a name that ssh could take for an option, no port number,
            a path with ``..``, a character that no name has.
    """
    if not text.startswith(SCHEME):
        raise _bad(text, "it begins with ssh://")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # its words may hold what was taken for a port
        raise _bad(text, "a port is a number from 1 to 65535, an IPv6 address stands in brackets") from None
    if parts.password is not None:
        raise _bad(text, "passwords are not taken: ssh-copy-id brings a key there")
    if parts.query or parts.fragment:
        raise _bad(text, "'?' and '#' mean nothing in it")
    host, user = parts.netloc.rpartition("@")[2], parts.username
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if not (NAME.fullmatch(host) or (":" in host and IPV6.fullmatch(host))):
        raise _bad(text, "a host is named by letters, digits, '.', '-' and '_', and begins with none of '.' and '-'")
    if user is not None and not NAME.fullmatch(user):
        raise _bad(text, "a user is named by letters, digits, '.', '-' and '_', and begins with none of '.' and '-'")
    if port == 0:
        raise _bad(text, "a port is a number from 1 to 65535")
    return Address(host, user, port, _path(text, unquote(parts.path)))


def _path(text: str, path: str) -> str:
    if line(path) != path:
        raise _bad(text, "its path has a control character")
    if ".." in path.split("/"):
        raise _bad(text, "its path has '..'")
    if path.startswith("/~"):
        if path[2:3] not in ("", "/"):
            raise _bad(text, "only /~/, the home of the user that logs in, is known")
        return path[3:].strip("/")
    return path.rstrip("/") if path != "/" else ""


def _bad(text: str, rule: str) -> ConfigError:
    """The error of ``text``, in which nothing stands that may be a password: an error goes into logs of many."""
    scheme, rest = (SCHEME, text[len(SCHEME) :]) if text.startswith(SCHEME) else ("", text)
    hidden = re.sub(r":.*@", ":…@", rest, flags=re.DOTALL)
    return ConfigError(
        f"'{scheme}{line(hidden)}' is no address of a board: {rule}; e.g. ssh://user@board:22/opt/packages"
    )
