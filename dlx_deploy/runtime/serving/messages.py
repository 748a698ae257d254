"""What an HTTP request and its answer are to everything behind the connection."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Mapping, Optional, Sequence, Tuple, Union

from ..records import record

__all__ = ["JSON", "Body", "Head", "Refused", "Request", "Response", "encoded", "fault_response", "json_response"]

JSON = "application/json"
ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))  # made once: that takes as long as its work
Body = Union[bytes, bytearray, memoryview]


@record
class Head:
    """A request before its body. ``path``: the decoded segments; ``headers``: by name in lower case.

    ``query``: what stands behind a ``?``, as it came. ``length``: the body's bytes, ``None``: it comes in chunks.
    ``keep_alive``: another request may follow on this connection. ``expects``: the client waits for a word before it
    sends the body.
    """

    method: str
    path: Tuple[str, ...]
    query: str
    headers: Mapping[str, str]
    length: Optional[int] = 0
    keep_alive: bool = True
    expects: bool = False


@record
class Request:
    """A whole request; ``body`` belongs to it alone, and is only read."""

    head: Head
    body: memoryview


@record
class Response:
    """An answer; ``parts`` of the body are sent one behind the other. ``last``: the connection ends with it."""

    status: int
    parts: Sequence[Body]
    content_type: str = JSON
    headers: Tuple[Tuple[str, str], ...] = ()
    last: bool = False

    @property
    def length(self) -> int:
        """The body's bytes."""
        return sum(len(part) for part in self.parts)


class Refused(Exception):
    """Raised where a request cannot be answered: the status, and a message for a person as KServe's ``error``."""

    def __init__(self, status: int, message: str, *headers: Tuple[str, str]) -> None:
        super().__init__(message)
        self.status, self.headers = HTTPStatus(status), headers


def encoded(value: object) -> bytes:
    """``value`` as JSON in ASCII: what a terminal would obey is escaped in it."""
    return ENCODER.encode(value).encode("ascii")


def json_response(value: object, status: int = 200) -> Response:
    """``value`` as an answer of JSON."""
    return Response(status, (encoded(value),))


def fault_response(refused: Refused, last: bool = False) -> Response:
    """The answer to what was refused."""
    body = encoded({"error": str(refused)})
    return Response(int(refused.status), (body,), headers=tuple(refused.headers), last=last)
