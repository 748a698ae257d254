from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography", reason="cryptography is not installed: pip install '.[signatures]'")

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dlx_deploy import cli
from dlx_deploy.runtime import load
from dlx_deploy.runtime.commands.main import main, view_of
from dlx_deploy.runtime.errors import BackendMissing, InputError, PackageError
from dlx_deploy.runtime.package import archive
from dlx_deploy.runtime.package.bundle import MAX_SIGNATURE
from dlx_deploy.runtime.package.contents import open_package
from dlx_deploy.runtime.package.trust import CERTIFICATES_VARIABLE, KEY_VARIABLE, Trust

from .signatures import (
    bundle,
    certificate_pem,
    encoded,
    make_certificate,
    make_key,
    private_pem,
    public_pem,
    statement,
    write,
)

KEY = make_key()


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (KEY_VARIABLE, CERTIFICATES_VARIABLE):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def package(tmp_path: Path, dlx: Path) -> Path:
    return Path(shutil.copy(dlx, tmp_path / "tiny.dlx"))


@pytest.fixture
def trusted(tmp_path: Path) -> Path:
    return write(tmp_path / "p.pem", public_pem(KEY))


def sign(package: Path, key: Any = KEY, chain: list[Any] | None = None, **changes: Any) -> Path:
    """A signature beside ``package``; ``changes``: of the statement that is signed."""
    document = bundle(statement(package.read_bytes(), **changes), key, chain)
    return write(Path(f"{package}.sig"), json.dumps(document).encode())


def refusal(package: Path, trust: Trust) -> str:
    with pytest.raises(PackageError) as caught:
        open_package(package, trust)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_a_trusted_key(package: Path, tmp_path: Path, curve: Any) -> None:
    key = make_key(curve)
    sign(package, key)
    opened = open_package(package, Trust(write(tmp_path / "p.pem", public_pem(key))))
    assert opened.signed is not None
    assert opened.signed.signature == f"{package}.sig"
    assert opened.signed.by.startswith("key ")


def test_several_trusted_keys_in_a_file_and_a_signature_without_a_hint(package: Path, tmp_path: Path) -> None:
    document = bundle(statement(package.read_bytes()), KEY)
    document["verificationMaterial"]["publicKey"] = {}
    signature = write(tmp_path / "elsewhere.sig", json.dumps(document).encode())
    keys = write(tmp_path / "p.pem", public_pem(make_key()) + public_pem(KEY))
    assert open_package(package, Trust(keys, signature=signature)).signed is not None


def test_nothing_is_parsed_before_the_signature_is_verified(
    package: Path, trusted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "parse_archive", lambda *_: pytest.fail("parsed"))
    assert "is not there" in refusal(package, Trust(trusted))


def test_a_package_changed_after_it_was_signed(package: Path, trusted: Path) -> None:
    sign(package)
    data = bytearray(package.read_bytes())
    data[len(data) // 2] ^= 1
    package.write_bytes(data)
    assert "changed after it was signed, or the signature of another package" in refusal(package, Trust(trusted))


def test_the_signature_of_another_file(package: Path, trusted: Path, tmp_path: Path) -> None:
    other = sign(write(tmp_path / "other.dlx", b"other"))
    assert "or the signature of another package" in refusal(package, Trust(trusted, signature=other))


def test_another_key(package: Path, trusted: Path) -> None:
    sign(package, make_key())
    assert "is signed by the key" in refusal(package, Trust(trusted))


def test_another_key_that_says_it_is_the_trusted_one(package: Path, trusted: Path) -> None:
    document = bundle(statement(package.read_bytes()), make_key())
    document["verificationMaterial"] = bundle({}, KEY)["verificationMaterial"]
    write(Path(f"{package}.sig"), json.dumps(document).encode())
    assert "the signature is not of the key" in refusal(package, Trust(trusted))


def test_a_payload_changed_after_it_was_signed(package: Path, trusted: Path) -> None:
    document = bundle(statement(b"other"), KEY)
    document["dsseEnvelope"]["payload"] = encoded(json.dumps(statement(package.read_bytes())).encode())
    write(Path(f"{package}.sig"), json.dumps(document).encode())
    assert "it, or what it signs, was changed" in refusal(package, Trust(trusted))


HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "the signature is not JSON"),
    "cut short": (b'{"mediaType": "appl', "the signature is not JSON"),
    "a bomb of lists": (b"[" * 100_000, "nested more than 64 deep"),
    "a list": (b"[]", "mediaType is None"),
    "no text": (b"\xff\xfe", "the signature is not JSON"),
    "an endless number": (b'{"mediaType": ' + b"9" * 5000 + b"}", "a number has 5000 digits"),
    "too large": (b" " * (MAX_SIGNATURE + 1), "a signature has at most"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_signature(package: Path, trusted: Path, kind: str) -> None:
    data, message = HOSTILE[kind]
    write(Path(f"{package}.sig"), data)
    assert message in refusal(package, Trust(trusted))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("mediaType", "application/json", "mediaType is 'application/json'; must be"),
        ("verificationMaterial", [], "verificationMaterial is []; must be a table"),
        ("verificationMaterial", {}, "names neither publicKey nor x509CertificateChain"),
        ("verificationMaterial", {"publicKey": "x"}, "publicKey is 'x'; must be a table"),
        ("verificationMaterial", {"certificate": {}}, "is a keyless Sigstore signature"),
        ("verificationMaterial", {"x509CertificateChain": {"certificates": []}}, "must be a list of 1 to 16"),
        ("dsseEnvelope.payloadType", "text/plain", "payloadType is 'text/plain'"),
        ("dsseEnvelope.signatures", [], "signatures is []; must be a list of one"),
        ("dsseEnvelope.signatures", [{"sig": "AA=="}, {"sig": "AA=="}], "must be a list of one"),
        ("dsseEnvelope.signatures", [{"sig": "not base64 \x1b"}], "sig is 'not base64 \\x1b'; must be Base64"),
        ("dsseEnvelope.signatures", [{"sig": 3}], "sig is 3; must be Base64"),
        ("dsseEnvelope.signatures", [{"sig": "AA=="}], "the signature is not of the key"),
        ("dsseEnvelope.payload", None, "payload is None; must be Base64"),
    ],
)
def test_a_field_of_a_signature(package: Path, trusted: Path, path: str, value: object, message: str) -> None:
    document = bundle(statement(package.read_bytes()), KEY)
    *tables, last = path.split(".")
    table = document
    for name in tables:
        table = table[name]
    table[last] = value
    write(Path(f"{package}.sig"), json.dumps(document).encode())
    assert message in refusal(package, Trust(trusted))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_type": "x"}, "_type is 'x'"),
        ({"predicateType": "https://model_signing/Digests/v0.1"}, "predicateType is 'https://model_signing/Digests"),
        ({"subject": []}, "subject is []; must be a list of one"),
        ({"subject": [{"digest": {"sha256": "00"}}]}, "subject.0.digest.sha256 is '00'"),
        ({"predicate": {"serialization": {"method": "shards"}}}, "serialization.method is 'shards'"),
        ({"predicate": 3}, "predicate.serialization.method is None"),
    ],
)
def test_what_is_signed_is_another_statement(package: Path, trusted: Path, changes: Any, message: str) -> None:
    sign(package, **changes)
    assert message in refusal(package, Trust(trusted))


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ([{"name": "."}, {"name": "b"}], "resources is [{'name': '.'}, {'name': 'b'}]; must be a list of one"),
        ([{"name": "model.bin"}], "resources.0.name is 'model.bin'; must be '.'"),
        ([{"name": ".", "algorithm": "blake3"}], "algorithm is 'blake3'; must be 'sha256'"),
        ([{"name": ".", "algorithm": "sha256", "digest": "AB" * 32}], "must be 64 hexadecimal digits"),
    ],
)
def test_a_signature_of_something_else_than_one_file(
    package: Path, trusted: Path, resources: Any, message: str
) -> None:
    sign(package, predicate={"serialization": {"method": "files"}, "resources": resources})
    assert message in refusal(package, Trust(trusted))


@pytest.mark.parametrize(
    ("pem", "message"),
    [
        (b"", "holds no public key; make it from yours: openssl pkey"),
        (private_pem(KEY), "it holds a private key, which belongs on no device"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "a key in it cannot be read"),
        (public_pem(rsa.generate_private_key(65537, 2048)), "must be of an elliptic curve: secp256r1"),
        (public_pem(make_key(ec.SECP256K1())), "the key is secp256k1; must be of an elliptic curve"),
        (None, "cannot be read"),
    ],
)
def test_a_key_that_cannot_be_trusted(package: Path, tmp_path: Path, pem: bytes | None, message: str) -> None:
    sign(package)
    path = tmp_path / "p.pem"
    if pem is not None:
        path.write_bytes(pem)
    with pytest.raises(InputError, match=message):
        open_package(package, Trust(path))


def chain_of(**usage: bool) -> tuple[Any, list[Any], Any]:
    """A root; the signer's certificate and the one between them; the signer's key."""
    root_key, middle_key, key = make_key(), make_key(ec.SECP384R1()), make_key()
    root = make_certificate("root", root_key, ca=True)
    middle = make_certificate("middle", middle_key, (root, root_key), ca=True)
    return root, [make_certificate("Maker of packages", key, (middle, middle_key), **usage), middle], key


def test_a_certificate_of_a_trusted_root(package: Path, tmp_path: Path) -> None:
    pytest.importorskip("OpenSSL", reason="pyOpenSSL is not installed")
    root, chain, key = chain_of()
    sign(package, key, chain)
    trust = Trust(certificates=write(tmp_path / "root.pem", certificate_pem(root)))
    signed = open_package(package, trust).signed
    assert signed is not None
    assert signed.by == "certificate CN=Maker of packages"

    assert "only keys are trusted" in refusal(package, Trust(write(tmp_path / "p.pem", public_pem(key))))
    sign(package, make_key(), chain)
    assert "the signature is not of its certificate" in refusal(package, trust)
    sign(package, key, chain[:1])
    assert "its certificate is not from the trusted ones" in refusal(package, trust)
    sign(package)
    assert "only certificates are trusted" in refusal(package, trust)


def test_certificates_that_do_not_count(package: Path, tmp_path: Path) -> None:
    pytest.importorskip("OpenSSL", reason="pyOpenSSL is not installed")
    root, chain, key = chain_of(signs=False)
    trust = Trust(certificates=write(tmp_path / "root.pem", certificate_pem(root)))
    sign(package, key, chain)
    assert "is not for signing" in refusal(package, trust)
    _, strangers, key = chain_of()
    sign(package, key, strangers)
    assert "its certificate is not from the trusted ones" in refusal(package, trust)
    below = make_certificate("below", KEY, (strangers[0], key))  # issued by what is no authority
    sign(package, KEY, [below, *strangers])
    assert "its certificate is not from the trusted ones" in refusal(package, trust)
    with pytest.raises(InputError, match="holds none"):
        open_package(package, Trust(certificates=write(tmp_path / "root.pem", b"")))


def test_the_library_is_missing(package: Path, trusted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sign(package)
    monkeypatch.setattr(importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    with pytest.raises(BackendMissing, match=r"needs cryptography, which is not here .* pip install 'cryptography"):
        open_package(package, Trust(trusted))


def test_the_machine_trusts_a_key(package: Path, trusted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, str(trusted))
    with pytest.raises(PackageError, match="a signature is required"):
        open_package(package)
    with pytest.raises(PackageError, match="a signature is required"):
        load(package)
    assert main(["selftest"], str(package)) == 2
    sign(package)
    assert open_package(package).signed is not None
    assert main(["selftest", "--threads", "1"], str(package)) == 0
    monkeypatch.setenv(KEY_VARIABLE, " ")
    with pytest.raises(InputError, match=f"{KEY_VARIABLE} is empty"):
        open_package(package)


@pytest.mark.parametrize(
    "command", [["selftest"], ["bench"], ["verify", "--data=x"], ["predict", "x.png"], ["engine"], ["inspect"]]
)
def test_every_command_refuses_an_unsigned_package(
    package: Path, trusted: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [command[0], str(package), *command[1:], "--require-signature", f"--public-key={trusted}"]
    assert cli.run(asked) == 2
    assert "a signature is required" in capsys.readouterr().err
    with pytest.raises(PackageError, match="a signature is required"):
        view_of([*command, f"--public-key={trusted}"], str(package))
    assert cli.run([command[0], str(package), *command[1:], "--require-signature"]) == 2
    assert "no key is trusted" in capsys.readouterr().err


def test_inspect_says_who_signed(package: Path, trusted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signature = sign(package)
    assert cli.run(["inspect", str(package)]) == 0
    assert f"signed   unknown: {signature} is here and was not verified" in capsys.readouterr().out
    assert cli.run(["inspect", str(package), "--verify-signature", "--public-key", str(trusted)]) == 0
    assert "signed   by key " in capsys.readouterr().out
    assert cli.run(["inspect", str(package), "--json", "--public-key", str(trusted)]) == 0
    assert json.loads(capsys.readouterr().out)["signature"]["file"] == str(signature)
    assert cli.run(["inspect", "resnet18", "--verify-signature"]) == 2
    assert "only packages have --sbom, and signatures" in capsys.readouterr().err


def test_a_package_does_not_vouch_for_itself(package: Path, trusted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sign(package)
    assert main(["selftest", "--public-key", str(trusted)], str(package)) == 2
    assert "its word for its signature is worth nothing" in capsys.readouterr().err
    with pytest.raises(InputError, match="load\\(trust=…\\) is for code that you trust"):
        load(trust=Trust(trusted))


def test_the_runtime_of_a_trusted_package_verifies_another(package: Path, trusted: Path, tmp_path: Path) -> None:
    """What a device without dlx-deploy does: ``python -m dlx_runtime X.dlx``, the code installed once."""
    with zipfile.ZipFile(package) as zipped:
        zipped.extractall(tmp_path / "lib", [name for name in zipped.namelist() if name.startswith("dlx_runtime/")])
    command = [sys.executable, "-m", "dlx_runtime", str(package), "selftest", "--threads=1"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "lib"), KEY_VARIABLE: str(trusted)}
    unsigned = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (unsigned.returncode, "a signature is required" in unsigned.stderr) == (2, True)
    sign(package)
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
