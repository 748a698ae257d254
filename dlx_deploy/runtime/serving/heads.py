"""The head of an HTTP/1.1 request, read strictly: what two readers could understand in two ways is refused.

RFC 9112, without what no client of ours sends: folded lines, bare line feeds, absolute targets.
"""

from __future__ import annotations

import re
from typing import Dict, List, Mapping, Optional, Tuple
from urllib.parse import unquote

from .messages import Head, Refused

__all__ = ["MAX_FIELDS", "parse_head"]

MAX_FIELDS = 64
MAX_SEGMENTS = 16
REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) (/[\x21-\x7e]*) HTTP/1\.([01])")
FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*((?:[\x21-\x7e\x80-\xff][\t\x20-\x7e\x80-\xff]*)?)")
ONLY_ONCE = frozenset(
    (
        "authorization",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "inference-header-content-length",
        "transfer-encoding",
    )
)
"""Fields of which two would be two meanings."""
LENGTH = re.compile(r"[0-9]{1,15}")


def parse_head(data: bytes) -> Head:
    """The head of a request: ``data`` up to, and without, the empty line.

    Raises:
        Refused: 400 not HTTP, or not by these rules; 411, 417, 431, 501, 505.
    """
    lines = data.split(b"\r\n")
    method, path, query, minor = _request_line(lines[0])
    if len(lines) > MAX_FIELDS + 1:
        raise Refused(431, f"the request has {len(lines) - 1} header fields; at most {MAX_FIELDS}")
    headers = _fields(lines[1:])
    if minor and "host" not in headers:
        raise Refused(400, "the request names no Host, which HTTP/1.1 demands")
    closing = headers.get("connection", "").lower()
    return Head(
        method,
        path,
        query,
        headers,
        _length(headers, minor),
        "close" not in closing if minor else "keep-alive" in closing,
        _expects(headers, minor),
    )


def _request_line(line: bytes) -> Tuple[str, Tuple[str, ...], str, int]:
    """Method, segments of the path, query and minor version."""
    match = REQUEST_LINE.fullmatch(line)
    if match is None:
        if re.search(rb" HTTP/[02-9]\.[0-9]$", line):
            raise Refused(505, "the request is of another version of HTTP; 1.1 is spoken here")
        raise Refused(400, "the first line is no request of HTTP/1.1 for a path")
    method, target, minor = match.groups()
    where, _, query = target.decode("ascii").partition("?")
    raw = where.strip("/")
    segments = raw.split("/") if raw else []
    if len(segments) > MAX_SEGMENTS:
        raise Refused(404, "there is nothing at this path")
    try:
        path = tuple(unquote(one, errors="strict") for one in segments)
    except UnicodeDecodeError as e:
        raise Refused(400, "the path is no UTF-8") from e
    return method.decode("ascii"), path, query, int(minor)


def _fields(lines: List[bytes]) -> Dict[str, str]:
    headers: Dict[str, str] = {}
    for one in lines:
        match = FIELD.fullmatch(one)
        if match is None:
            raise Refused(400, "a header field is not NAME: VALUE on one line")
        name, value = match.group(1).decode("ascii").lower(), match.group(2).decode("latin-1").rstrip(" \t")
        if name in headers:
            if name in ONLY_ONCE:
                raise Refused(400, f"the header field {name} is there twice")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    return headers


def _length(headers: Mapping[str, str], minor: int) -> Optional[int]:
    """The body's bytes, ``None`` where it comes in chunks."""
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if length is not None or not minor:
            raise Refused(400, "the request says in two ways how long it is: Transfer-Encoding and Content-Length")
        if coding.lower() != "chunked":
            raise Refused(501, "Transfer-Encoding must be chunked, and nothing else")
        return None
    if length is None:
        return 0
    if not LENGTH.fullmatch(length):
        raise Refused(400, "Content-Length is no number of bytes")
    return int(length)


def _expects(headers: Mapping[str, str], minor: int) -> bool:
    expected = headers.get("expect")
    if expected is None or not minor:
        return False
    if expected.lower() != "100-continue":
        raise Refused(417, "Expect must be 100-continue, and nothing else")
    return True
