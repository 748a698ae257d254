"""Clients that are slow, greedy, rude or not who they should be; and a server that is full, or about to end."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlx_deploy.runtime.errors import Busy, Expired, InputError
from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.serving.access import Access
from dlx_deploy.runtime.serving.asked import Asked
from dlx_deploy.runtime.serving.inference import infer
from dlx_deploy.runtime.serving.messages import Refused
from dlx_deploy.runtime.serving.models import Served
from dlx_deploy.runtime.serving.queue import MicroBatcher
from dlx_deploy.runtime.serving.reading import holding, holding_asked, read_samples
from dlx_deploy.runtime.serving.server import Server, Settings
from dlx_deploy.runtime.serving.stream import Limits, Room
from dlx_deploy.runtime.serving.tensors import InputTensor
from dlx_deploy.runtime.tasks.text_inputs import TextInputs, Tokens
from dlx_deploy.runtime.watching.watch import Watch

INFER = "/v2/models/tiny/infer"
QUICK = Limits(head_bytes=1_000, body_bytes=10_000, idle_s=0.2, head_s=0.2, slowest=1_000_000)


class Held:
    """A queue that answers when it is let go."""

    capacity = 256

    def __init__(self, error: Exception | None = None) -> None:
        self.entered, self.go, self.error = threading.Event(), threading.Event(), error

    def submit(self, feeds: Any, timeout_s: float | None = None) -> Any:
        self.entered.set()
        if self.error:
            raise self.error
        assert self.go.wait(30)
        return {"logits": np.zeros((len(feeds["images"]), 3), np.float32)}


def asked(data: Any) -> dict[str, Any]:
    images = data[0][:1]
    return {"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 6, 4, 3], "data": images.ravel().tolist()}]}


def until(server: Server, busy: int) -> None:
    """Waits until so many connections are in the middle of a request: an answer is read before that is over."""
    while server.busy != busy:
        time.sleep(0.001)


@pytest.fixture(scope="module")
def quick(predictor: Predictor, http: Any) -> Any:
    with http.served(predictor, settings=Settings(connections=2, limits=QUICK)) as server:
        yield server


def test_who_is_slow_is_not_waited_for(quick: Server, http: Any) -> None:
    silent, slow = http.client(quick.address), http.client(quick.address)
    slow.send(b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Le")
    assert slow.answer()[0] == 408
    assert slow.ended()
    assert silent.ended()
    half = http.client(quick.address)
    half.send(http.request("POST", INFER, b"12345")[:-2])
    assert half.answer()[0] == 408


CHUNKED = b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nx: " + b"y" * 2_000 + b"\r\n\r\n", 431),
        (b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10001\r\n\r\n", 413),
        (CHUNKED + b"ffff\r\n", 413),
        (CHUNKED + b"-1\r\n", 400),
        (CHUNKED + b"2\r\nabcd\r\n", 400),
        (CHUNKED + b"0\r\n" + b"x: y\r\n" * 500, 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    ],
)
def test_what_is_too_large_or_no_request_is_refused_before_it_is_read(
    quick: Server, http: Any, sent: bytes, status: int
) -> None:
    client = http.client(quick.address)
    client.send(sent)
    seen, headers, body = client.answer()
    assert (seen, headers["connection"], list(json.loads(body))) == (status, "close", ["error"])
    assert client.ended()


def test_many_bodies_are_no_more_together_than_they_may(predictor: Predictor, http: Any, data: Any) -> None:
    body = json.dumps(asked(data)).encode()
    limits = Limits(body_bytes=len(body), total_bytes=len(body))
    with http.served(predictor, settings=Settings(limits=limits)) as server:
        first, second = http.client(server.address), http.client(server.address)
        whole = http.request("POST", INFER, body, close=False)
        first.send(whole[:-1])
        until(server, busy=1)
        for _ in range(500):  # until the first one's length is known
            second.send(whole)
            status, headers, answer = second.answer()
            if status != 200:
                break
            time.sleep(0.001)
        assert (status, headers["retry-after"], "as much of other requests as it may" in str(answer)) == (
            503,
            "1",
            True,
        )
        first.send(whole[-1:])
        assert first.answer()[0] == 200
        first.send(whole)
        assert first.answer()[0] == 200


def test_requests_follow_one_another_on_a_connection(server: Server, http: Any, data: Any) -> None:
    """Two sent at once are answered in their order; a body may come in chunks, or after a word."""
    client = http.client(server.address)
    client.send(
        http.request("GET", "/v2/health/live", close=False) + http.request("GET", "/v2/health/ready", close=False)
    )
    assert json.loads(client.answer()[2]) == {"live": True}
    assert json.loads(client.answer()[2]) == {"ready": True}
    body = json.dumps(asked(data)).encode()
    client.send(CHUNKED.replace(b"Transfer", b"Expect: 100-continue\r\nTransfer"))
    assert client.answer()[0] == 100
    client.send(b"%x;a=b\r\n%b\r\n0\r\nTrailer: x\r\n\r\n" % (len(body), body))
    assert json.loads(client.answer()[2])["outputs"][0]["shape"] == [1, 3]
    client.send(http.request("GET", "/v2/nothing", close=False))
    assert client.answer()[0] == 404
    client.send(http.request("GET", "/v2"))
    assert (client.answer()[0], client.ended()) == (200, True)


def test_a_client_that_never_reads_is_let_go_and_holds_nobody_up(predictor: Predictor, http: Any, data: Any) -> None:
    limits = Limits(head_s=0.3, slowest=10**9)
    with http.served(predictor, settings=Settings(limits=limits)) as server:
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        deaf.connect(server.address)
        pages = http.request("GET", "/metrics", close=False) * 200
        deaf.settimeout(10)
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            deaf.sendall(pages * 1_000)
        other = http.client(server.address)
        other.send(http.request("POST", INFER, asked(data)))
        assert other.answer()[0] == 200


def test_the_connection_that_waits_longest_gives_way_to_a_new_one(predictor: Predictor, http: Any, data: Any) -> None:
    queue = Held()
    with http.served(predictor, queue, settings=Settings(connections=2)) as server:
        idle = []
        for _ in range(2):
            idle.append(http.client(server.address))
            idle[-1].send(http.request("GET", "/v2/health/live", close=False))
            idle[-1].answer()
            until(server, busy=0)
        first, second = idle
        third = http.client(server.address)
        third.send(http.request("POST", INFER, asked(data), close=False))
        assert first.ended()
        assert queue.entered.wait(30)
        fourth = http.client(server.address)
        fourth.send(http.request("POST", INFER, asked(data), close=False))
        assert second.ended()
        until(server, busy=2)
        fifth = http.client(server.address)
        status, headers, body = fifth.answer()
        assert (status, headers["retry-after"], "as many connections as it may" in str(body)) == (503, "1", True)
        queue.go.set()
        assert [third.answer()[0], fourth.answer()[0]] == [200, 200]


@pytest.mark.parametrize(
    ("error", "status"),
    [(Busy("256 samples wait"), 429), (Expired("no answer within 30 s"), 503), (OSError("the disk is gone"), 500)],
)
def test_an_overloaded_model_says_when_to_come_again(
    predictor: Predictor, http: Any, data: Any, error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with http.served(predictor, Held(error)) as server:
        client = http.client(server.address)
        client.send(http.request("POST", INFER, asked(data), close=False))
        seen, headers, body = client.answer()
        assert (seen, headers.get("retry-after")) == (status, "1" if status != 500 else None)
        known = "the server failed; its log says how" if status == 500 else str(error)
        assert json.loads(body) == {"error": known}
        assert ("the disk is gone" in caplog.text) == (status == 500)
        client.send(http.request("GET", "/metrics"))
        kind = type(error).__name__
        assert f'dlx_errors_total{{model="tiny",version="1.2.3",kind="{kind}"}} 1' in client.answer()[2].decode()


def test_a_request_of_many_blocks_has_one_deadline(predictor: Predictor) -> None:
    class Slow(Held):
        def submit(self, feeds: Any, timeout_s: float | None = None) -> Any:
            waits.append(timeout_s)
            self.go.set()
            return super().submit(feeds)

    waits: list[float | None] = []
    watch, rows = Watch(predictor), (130, 6, 4, 3)
    served = Served(watch, Slow(), clock=lambda: 100.0 + 3.0 * len(waits))
    tensor = InputTensor("images", "UINT8", rows, np.zeros(rows, np.uint8))
    infer(served, Asked(None, (tensor,), None, binary=True, timeout_s=5.0))
    assert waits == [5.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("datatype", "values"), [("BYTES", [b"no image"] * 3), ("UINT8", np.zeros((3, 6, 4, 3), np.uint8))]
)
def test_samples_that_would_fill_the_memory_are_refused_before_they_are_read(
    predictor: Predictor, server: Server, http: Any, monkeypatch: pytest.MonkeyPatch, datatype: str, values: Any
) -> None:
    monkeypatch.setattr("dlx_deploy.runtime.serving.reading.BLOCK_BYTES", 200)  # a sample has 72 + 12 bytes
    served = Served(Watch(predictor), Held(), memory=Room(200))
    tensor = InputTensor("images", datatype, (3, 6, 4, 3) if datatype == "UINT8" else (3,), values)
    with pytest.raises(
        Refused, match=r"^3 samples have 252 bytes of inputs and outputs; at most 200: send at most 2 at a time$"
    ) as e:
        holding_asked(served, Asked(None, (tensor,), None)).__enter__()
    assert e.value.status == 413
    given = {"name": "images", "datatype": "UINT8", "shape": [3, 6, 4, 3], "data": [0] * 216}
    for path in (INFER, INFER.replace("infer", "predict")):
        client = http.client(server.address)
        client.send(http.request("POST", path, {"inputs": [given]}))
        assert client.answer()[0] == 413
    with holding(served, 2), pytest.raises(Refused, match="as much of other requests as it may"):
        holding(served, 1).__enter__()
    with holding(served, 2):
        pass


def test_texts_are_read_once() -> None:
    inputs = TextInputs(Tokens(vocabulary=100, pad_id=9, max_length=8, truncate=True), b"")
    reads: list[object] = []

    def read(given: str) -> Any:
        reads.append(given)
        return {"tokens": np.arange(len(given), dtype=np.int32)[None]}

    task = SimpleNamespace(inputs=inputs, place=None)
    predictor = SimpleNamespace(package=SimpleNamespace(task=task), read=read)
    served: Any = SimpleNamespace(predictor=predictor, reading=contextlib.nullcontext())
    feeds = read_samples(served, [b"a", b"abc"], report=False, keep=False).feeds
    assert feeds["tokens"].tolist() == [[0, 9, 9], [0, 1, 2]]
    assert reads == ["a", "abc"]


@pytest.mark.parametrize(("count", "status"), [(10, 200), (0, 400)])
def test_more_samples_than_may_wait_are_run_in_blocks(predictor: Predictor, http: Any, count: int, status: int) -> None:
    """What a queue itself finds wrong with its inputs is the fault of who asked."""
    queue: Any = MicroBatcher(predictor, capacity=8) if count else Held(InputError("not these"))
    rows = [count or 1, 6, 4, 3]
    tensor = {"name": "images", "datatype": "UINT8", "shape": rows, "data": [0] * int(np.prod(rows))}
    with http.served(predictor, queue) as server:
        client = http.client(server.address)
        client.send(http.request("POST", INFER, {"inputs": [tensor]}))
        assert client.answer()[0] == status


def test_a_connection_without_a_thread_is_turned_away(
    server: Server, http: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        assert http.client(server.address).answer()[0] == 503
    assert "no connection can be taken: can't start new thread" in caplog.text
    client = http.client(server.address)
    client.send(http.request("GET", "/v2"))
    assert client.answer()[0] == 200


def test_an_end_answers_what_has_begun(predictor: Predictor, http: Any, data: Any) -> None:
    queue = Held()
    with http.served(predictor, queue) as server:
        address = server.address
        idle, busy = http.client(address), http.client(address)
        idle.send(http.request("GET", "/v2", close=False))
        idle.answer()
        until(server, busy=0)
        busy.send(http.request("POST", INFER, asked(data), close=False))
        assert queue.entered.wait(30)
        ends: list[bool] = []
        ending = threading.Thread(target=lambda: ends.append(server.drain(10)))
        ending.start()
        assert idle.ended()
        queue.go.set()
        status, headers, _ = busy.answer()
        assert (status, headers["connection"], busy.ended()) == (200, "close", True)
        ending.join(30)
        assert ends == [True]
        with pytest.raises(OSError, match="refused"):
            http.client(address)


def test_an_end_waits_no_longer_than_it_may(predictor: Predictor, http: Any, data: Any) -> None:
    queue = Held()
    with http.served(predictor, queue) as server:
        client = http.client(server.address)
        client.send(http.request("POST", INFER, asked(data), close=False))
        assert queue.entered.wait(30)
        assert not server.drain(0)
        queue.go.set()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "rebound.example"}, 403),
        ({"Host": "127.0.0.1.example:8000"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Origin": "http://localhost"}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic 0123456789abcdef"}, 401),
        ({"Authorization": "Bearer 0123456789abcdef"}, 200),
        ({"Host": "[::1]:8000", "Authorization": "bearer 0123456789abcdef"}, 200),
    ],
)
def test_who_may_not_ask_is_refused(
    predictor: Predictor, http: Any, headers: dict[str, str], status: int, locked: Server
) -> None:
    client = http.client(locked.address)
    client.send(http.request("GET", "/v2/models/tiny", **headers))
    seen, fields, _ = client.answer()
    assert (seen, "www-authenticate" in fields, "access-control-allow-origin" in fields) == (status, seen == 401, False)


@pytest.fixture(scope="module")
def locked(predictor: Predictor, http: Any) -> Any:
    with http.served(predictor, access=Access(b"0123456789abcdef")) as server:
        yield server


def test_what_supervisors_ask_needs_no_token(locked: Server, http: Any) -> None:
    client = http.client(locked.address)
    client.send(http.request("GET", "/v2/health/ready"))
    assert client.answer()[0] == 200


PIECES = (
    b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"3\r\n",
    b"0\r\n",
    b"abc",
    b"\r\n",
)


@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=20)))
@settings(max_examples=60, deadline=None)
def test_whatever_is_sent_is_answered_or_ended(server: Server, http: Any, pieces: list[bytes]) -> None:
    client = http.client(server.address)
    client.send(b"".join(pieces))
    client.sock.shutdown(socket.SHUT_WR)
    seen = b""
    while True:
        try:
            more = client.sock.recv(65536)
        except ConnectionResetError:
            break
        if not more:
            break
        seen += more
    assert not seen or seen.startswith(b"HTTP/1.1 ")
    assert b"HTTP/1.1 500" not in seen
