"""Who may ask: browsers of other sites never, and on other addresses than this machine's own only who has the token."""

from __future__ import annotations

import hmac
import ipaddress
import os
import ssl
import stat
from typing import FrozenSet, Optional

from ..errors import InputError
from ..files import PathLike, TooLarge, read_file, reason
from ..records import record
from ..words import line
from .messages import Head, Refused

__all__ = ["Access", "is_loopback", "read_tls", "read_token"]

LOCAL = frozenset(("localhost", "127.0.0.1", "[::1]"))
OPEN = frozenset(((), ("v2", "health", "live"), ("v2", "health", "ready")))
"""Paths that need no token: the page, which holds nothing of a package, and what supervisors ask."""
SAFE_SITES = ("same-origin", "none")
TOKEN_CHARACTERS = (16, 4_096)


@record
class Access:
    """``token``: which a request must bear; ``hosts``: by which names the server may be called, ``None``: by any.

    A page of another site whose name leads here (DNS rebinding) calls it by that name.
    """

    token: Optional[bytes] = None
    hosts: Optional[FrozenSet[str]] = LOCAL

    def check(self, head: Head) -> None:
        """Refuses a request that must not be answered.

        Raises:
            Refused: 401, 403.
        """
        host = head.headers.get("host")  # none in HTTP/1.0, which no browser speaks
        if self.hosts is not None and host is not None and _name_of(host) not in self.hosts:
            raise Refused(403, f"Host is another name than {', '.join(sorted(self.hosts))}; call the server by these")
        origin = head.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise Refused(403, "a page of another site asks, which no server here answers")
        if head.headers.get("sec-fetch-site", "none") not in SAFE_SITES and head.path:
            raise Refused(403, "a page of another site asks, which no server here answers")
        if self.token is None or head.path in OPEN:
            return
        scheme, _, given = head.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("latin-1", "replace"), self.token)
        if scheme.lower() != "bearer" or not right:
            challenge = ("WWW-Authenticate", 'Bearer realm="dlx-deploy"')
            raise Refused(401, "the server asks for its token: Authorization: Bearer TOKEN", challenge)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(path: PathLike) -> bytes:
    """The token in a file: its one line.

    Raises:
        InputError: it cannot be read, others may read it, or it is none.
    """
    name, (least, most) = line(os.fspath(path)), TOKEN_CHARACTERS
    try:
        data = read_file(path, most)
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except (OSError, ValueError) as e:
        raise InputError(f"{name}: cannot be read ({reason(e)}); name a file with the token in it") from e
    except TooLarge as e:
        raise InputError(f"{name}: has {e} bytes; a token has at most {most}") from e
    if mode & 0o077:
        raise InputError(f"{name}: others may read it (mode {mode:o}); keep it to yourself: chmod 600 {name}")
    token = data.strip()
    if len(token) < least or not all(0x21 <= c <= 0x7E for c in token):
        rule = f"must be one line of {least} characters or more, ASCII without spaces"
        raise InputError(f"{name}: holds no token; {rule}, as openssl rand -hex 32 gives")
    return token


def read_tls(certificate: PathLike, key: PathLike) -> ssl.SSLContext:
    """What encrypts connections, TLS 1.2 or newer.

    Raises:
        InputError: the files cannot be read, are none, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    names = f"{line(os.fspath(certificate))} and {line(os.fspath(key))}"
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")  # none: who serves cannot be asked
    except (OSError, ValueError) as e:  # ssl's own are OSErrors
        raise InputError(
            f"{names}: no certificate with its key ({line(str(e))}); give PEM files that belong together, the key "
            "without a password"
        ) from e
    return context


def _name_of(host: str) -> str:
    """``Host`` without its port."""
    name = host.lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0]
