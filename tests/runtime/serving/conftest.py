"""A server of the tiny package in this process, and a client that sends what it is told."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.serving.access import Access
from dlx_deploy.runtime.serving.models import Models, Queue, Served
from dlx_deploy.runtime.serving.queue import MicroBatcher
from dlx_deploy.runtime.serving.routes import Routes
from dlx_deploy.runtime.serving.server import Server, Settings, listen
from dlx_deploy.runtime.watching.watch import Watch


class Client:
    """A connection that sends bytes as they are."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address, timeout=10)
        self.ahead = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, body_follows: bool = True) -> tuple[int, dict[str, str], bytes]:
        """The next answer: its status, header fields and body."""
        while b"\r\n\r\n" not in self.ahead:
            self.ahead += self._more()
        head, _, self.ahead = self.ahead.partition(b"\r\n\r\n")
        first, *fields = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in fields)}
        size = int(headers.get("content-length", 0)) if body_follows else 0
        while len(self.ahead) < size:
            self.ahead += self._more()
        body, self.ahead = self.ahead[:size], self.ahead[size:]
        return int(first.split()[1]), headers, body

    def ended(self) -> bool:
        """Whether the server has closed this connection."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def _more(self) -> bytes:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError("the server closed the connection")
        return data


def request(method: str, path: str, body: bytes | dict[str, Any] = b"", close: bool = True, **headers: str) -> bytes:
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    lines = [f"{method} {path} HTTP/1.1"]
    fields = {"Host": "localhost", **({"Content-Length": str(len(data))} if data else {}), **headers}
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    lines += ["Connection: close"] if close else []
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


@contextmanager
def served(
    predictor: Predictor, queue: Queue | None = None, access: Access | None = None, settings: Settings | None = None
) -> Iterator[Server]:
    watch = Watch(predictor)
    watch.start()
    queue = queue or MicroBatcher(watch.predictor, observe=watch.waited)
    routes = Routes(Models([Served(watch, queue)]), access or Access(), "3")
    server = Server(listen("127.0.0.1", 0), routes, settings or Settings())
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.drain(5)
        thread.join(30)


Ask = Callable[..., tuple[int, dict[str, str], bytes]]


@pytest.fixture(scope="session")
def server(predictor: Predictor) -> Iterator[Server]:
    with served(predictor) as running:
        yield running


@pytest.fixture
def ask(server: Server) -> Ask:
    """Sends one request on a connection of its own, and gives its answer."""

    def send(method: str, path: str, body: bytes | dict[str, Any] = b"", **headers: str) -> Any:
        client = Client(server.address)
        client.send(request(method, path, body, **headers))
        return client.answer(method != "HEAD")

    return send


@pytest.fixture(scope="session")
def http() -> Any:
    """The functions of this file, for tests that have their own servers."""

    class Http:
        client = Client
        request = staticmethod(request)
        served = staticmethod(served)

    return Http
