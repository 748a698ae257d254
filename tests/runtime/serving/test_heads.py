from __future__ import annotations

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dlx_deploy.runtime.serving.heads import parse_head
from dlx_deploy.runtime.serving.messages import Refused

GOOD = b"POST /v2/models/caf%C3%A9/infer?top=3 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12"
LINES = (b"GET / HTTP/1.1", b"POST /v2?a=%2f HTTP/1.1", b"GET / HTTP/1.0", b"GET  / HTTP/1.1", b"GET /\xff HTTP/1.1")
FIELDS = (
    b"Host: x", b"host:x", b"Content-Length: 5", b"Content-Length: +5", b"content-length : 5", b"Content-Length: 05",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked, gzip", b"Transfer-Encoding:\x0bchunked", b"a: b",
    b"a:", b"a: \x00", b"a: \xff", b" folded", b"Connection: close", b"Connection: keep-alive", b"a: b\nc: d",
    b"Connection: x, close", b"Expect: 100-continue", b"Content-Length:", b"a\xff: b", b": b", b"b:c:d\t",
)  # fmt: skip


def test_a_head_is_read() -> None:
    head = parse_head(GOOD)
    assert (head.method, head.path, head.query) == ("POST", ("v2", "models", "café", "infer"), "top=3")
    assert (head.length, head.keep_alive, head.expects) == (12, True, False)


@pytest.mark.parametrize(
    ("changed", "status", "message"),
    [
        ((b" HTTP/1.1", b" HTTP/2.0"), 505, "another version of HTTP"),
        ((b" /v2", b" v2"), 400, "no request of HTTP/1.1 for a path"),
        ((b"POST ", b"POST  "), 400, "no request of HTTP/1.1"),
        ((b"caf%C3%A9", b"caf%ff"), 400, "no UTF-8"),
        ((b"/infer", b"/x" * 20), 404, "nothing at this path"),
        ((b"Host: localhost\r\n", b""), 400, "names no Host"),
        ((b"Host: localhost", b"Host: a\r\nHost: b"), 400, "field host is there twice"),
        ((b"Host: localhost", b"Host : localhost"), 400, "not NAME: VALUE"),
        ((b"Host: localhost", b"Host: localhost\r\n and more"), 400, "not NAME: VALUE"),
        ((b"Host: localhost", b"Host: local\nhost"), 400, "not NAME: VALUE"),
        ((b"Host: localhost", b"Host: a" + b"\r\nx: y" * 70), 431, "has 72 header fields; at most 64"),
        ((b": 12", b": -1"), 400, "no number of bytes"),
        ((b": 12", b": 1_2"), 400, "no number of bytes"),
        ((b": 12", b": 12\r\nTransfer-Encoding: chunked"), 400, "in two ways how long"),
        ((b"Content-Length: 12", b"Transfer-Encoding: gzip, chunked"), 501, "must be chunked"),
        ((b": 12", b": 12\r\nExpect: a miracle"), 417, "must be 100-continue"),
    ],
)
def test_what_two_readers_could_understand_in_two_ways_is_refused(
    changed: tuple[bytes, bytes], status: int, message: str
) -> None:
    data = GOOD.replace(*changed)
    assert data != GOOD
    with pytest.raises(Refused, match=message) as e:
        parse_head(data)
    assert e.value.status == status


FIELD = st.sampled_from(FIELDS) | st.binary(max_size=8)


@given(
    st.builds(lambda line, fields: b"\r\n".join([line, b"Host: y", *fields]), st.sampled_from(LINES), st.lists(FIELD))
)
@example(b"GET / HTTP/1.0\r\nConnection: keep-alive")
@settings(max_examples=300, deadline=None)
def test_what_is_read_is_what_h11_reads(data: bytes) -> None:
    """Of all that is taken a well-known reader of HTTP says the same: nobody between sees another request."""
    try:
        head = parse_head(data)
    except Refused:
        return
    other = h11.Connection(h11.SERVER)
    other.receive_data(data + b"\r\n\r\n")
    event = other.next_event()
    assert isinstance(event, h11.Request)
    headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
    assert event.method.decode() == head.method
    assert headers.get("host") == head.headers.get("host")
    assert (headers.get("transfer-encoding") == "chunked") == (head.length is None)
    assert int(headers.get("content-length", 0)) == (head.length or 0)
    if head.length == 0 and head.headers.get("connection", "close") == "close":
        assert isinstance(other.next_event(), h11.EndOfMessage)
        other.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
        other.send(h11.EndOfMessage())
        if "connection" in head.headers or event.http_version != b"1.0":
            assert (other.our_state is h11.DONE) == head.keep_alive
