"""What others reach: a token over TLS, by a real handshake."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dlx_deploy.runtime.commands.serve_options import ServeRequest
from dlx_deploy.runtime.commands.serving import open_server
from dlx_deploy.runtime.predictor import Predictor


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate for localhost with its key, and a token."""
    folder = tmp_path_factory.mktemp("secrets")
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "board")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    (folder / "token").write_text("0123456789abcdef\n")
    (folder / "token").chmod(0o600)
    named = {"tls_cert": "cert.pem", "tls_key": "key.pem", "token_file": "token"}
    return {option: str(folder / file) for option, file in named.items()}


def ask(address: tuple[str, int], certificate: str, request: bytes) -> bytes:
    context = ssl.create_default_context(cafile=certificate)
    with (
        socket.create_connection(address, timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        sock.sendall(request)
        seen = b""
        while more := sock.recv(65536):
            seen += more
        return seen


def test_who_has_the_token_is_answered_over_tls_alone(predictor: Predictor, secrets: dict[str, str], http: Any) -> None:
    opened = open_server([predictor], ServeRequest(host="0.0.0.0", port=0, **secrets))
    for watch, _ in opened.models:
        watch.start()
    server = opened.server
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    address = ("127.0.0.1", server.address[1])
    certificate = Path(secrets["tls_cert"])
    try:
        idle = socket.create_connection(address)  # says nothing, and holds nobody up
        plain = http.client(address)
        plain.send(http.request("GET", "/v2"))
        assert plain.ended()
        assert ask(address, str(certificate), http.request("GET", "/v2")).startswith(b"HTTP/1.1 401 ")
        request = http.request("GET", "/v2", Host="board.example", Authorization="Bearer 0123456789abcdef")
        assert ask(address, str(certificate), request).startswith(b"HTTP/1.1 200 ")
        idle.close()
    finally:
        server.drain(5)
        thread.join(30)
    assert Path(secrets["token_file"]).read_text().strip() not in repr(opened)
