"""One connection: request after request, each read, answered and sent before the next is looked at."""

from __future__ import annotations

import functools
import logging
import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Callable, List, Optional, Protocol

from .heads import parse_head
from .messages import Body, Head, Refused, Request, Response, fault_response
from .stream import Stream

__all__ = ["Handler", "converse"]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
REASONS = {int(status): status.phrase for status in HTTPStatus}
_log = logging.getLogger(__name__)


class Handler(Protocol):
    """What stands behind the connections; called by several threads at once."""

    def admit(self, head: Head) -> None:
        """Refuses what needs no body to be refused.

        Raises:
            Refused: says why.
        """

    def answer(self, request: Request) -> Response:
        """The answer.

        Raises:
            Refused: there is none, and why.
        """


def converse(stream: Stream, handler: Handler, stopping: Callable[[], bool], waits: Callable[[bool], None]) -> None:
    """Answers the requests of ``stream`` until either side is done.

    ``stopping``: whether this answer must be the last. ``waits`` hears when the connection begins and ends to wait.

    Raises:
        Ended: the peer broke off.
    """
    while True:
        waits(True)
        there = stream.wait()
        waits(False)
        if not there:
            return
        try:
            keep = _exchange(stream, handler, stopping)
        finally:
            stream.forget()
        if not keep:
            return


def _exchange(stream: Stream, handler: Handler, stopping: Callable[[], bool]) -> bool:
    """One request and its answer; whether another may follow."""
    head: Optional[Head] = None
    whole = False
    try:
        head = parse_head(stream.head())
        whole = head.length == 0
        if head.length is not None:
            stream.check_length(head.length)
        handler.admit(head)
        if head.expects:
            stream.send((CONTINUE,))
        body = stream.body(head.length) if head.length != 0 else memoryview(b"")
        whole = True
        response = _answer(handler, Request(head, body))
    except Refused as refused:
        response = fault_response(refused, last=not whole)
    keep = whole and head is not None and head.keep_alive and not response.last and not stopping()
    stream.send([_head_of(response, keep), *(() if head is not None and head.method == "HEAD" else response.parts)])
    if not whole:  # what is left of the request is no other one
        stream.linger()
    return keep


def _answer(handler: Handler, request: Request) -> Response:
    try:
        return handler.answer(request)
    except Refused:
        raise
    except MemoryError as e:
        raise Refused(503, "the server has not enough memory for that; send fewer or smaller inputs") from e
    except Exception as e:  # the border: one request must not end the others
        _log.exception("a request could not be answered")
        raise Refused(500, "the server failed; its log says how") from e


def _head_of(response: Response, keep: bool) -> Body:
    reason = REASONS.get(response.status, "")
    lines: List[str] = [
        f"HTTP/1.1 {response.status} {reason}",
        f"Date: {_date(int(time.time()))}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {response.length}",
        "X-Content-Type-Options: nosniff",
        *(f"{name}: {value}" for name, value in response.headers),
        *(() if keep else ("Connection: close",)),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@functools.lru_cache(maxsize=2)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
