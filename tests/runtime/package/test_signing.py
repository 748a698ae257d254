"""``dlx-deploy sign`` and the public command line of model-signing, each verified by the other."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("model_signing", reason="model-signing is not installed: pip install '.[sign]'")

from cryptography.hazmat.primitives.asymmetric import ec

from dlx_deploy import cli
from dlx_deploy.signing import PASSWORD_VARIABLE

from .signatures import (
    certificate_pem,
    make_certificate,
    make_key,
    private_pem,
    public_pem,
    write,
)

Run = Callable[..., "tuple[int, str]"]
CERTIFICATE = ("--certificate", "own.pem", "--chain", "root.pem")


@pytest.fixture
def folder(tmp_path: Path, dlx: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package, a key pair, and the certificate of it with its root."""
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copy(dlx, tmp_path / "X.dlx")
    key, root_key = make_key(ec.SECP384R1()), make_key()
    root = make_certificate("root", root_key, ca=True)
    write(tmp_path / "k.pem", private_pem(key))
    write(tmp_path / "p.pem", public_pem(key))
    write(tmp_path / "other.pem", private_pem(make_key()))
    write(tmp_path / "root.pem", certificate_pem(root))
    write(tmp_path / "own.pem", certificate_pem(make_certificate("Maker", key, (root, root_key))))
    write(tmp_path / "useless.pem", certificate_pem(make_certificate("Maker", key, (root, root_key), signs=False)))
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str]:
        code = cli.run(list(arguments))
        out, err = capsys.readouterr()
        return code, out + err

    return call


def model_signing(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model_signing", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def test_model_signing_verifies_ours(folder: Path, run: Run) -> None:
    code, said = run("sign", "X.dlx", "--key", "k.pem")
    assert (code, "X.dlx is signed by key " in said) == (0, True)
    verify = ("verify", "key", "X.dlx", "--public_key", "p.pem", "--signature", "X.dlx.sig")
    assert model_signing(folder, *verify).returncode == 0
    with open(folder / "X.dlx", "ab") as f:
        f.write(b"!")
    assert model_signing(folder, *verify).returncode == 1


def test_ours_verifies_that_of_model_signing(folder: Path, run: Run) -> None:
    done = model_signing(folder, "sign", "key", "X.dlx", "--private_key", "k.pem", "--signature", "X.dlx.sig")
    assert done.returncode == 0
    assert "signed   by key " in run("inspect", "X.dlx", "--verify-signature", "--public-key", "p.pem")[1]


def test_certificates_in_both_directions(folder: Path, run: Run) -> None:
    assert run("sign", "X.dlx", "--key", "k.pem", *CERTIFICATE)[0] == 0
    trust = ("verify", "certificate", "X.dlx", "--certificate_chain", "root.pem", "--signature", "X.dlx.sig")
    done = model_signing(folder, *trust)
    assert done.returncode == 0, done.stderr
    assert "signed   by certificate CN=Maker" in run("inspect", "X.dlx", "--certificates", "root.pem")[1]
    (folder / "X.dlx.sig").unlink()
    given = ("--private_key", "k.pem", "--signing_certificate", "own.pem", "--certificate_chain", "root.pem")
    done = model_signing(folder, "sign", "certificate", "X.dlx", *given, "--signature", "X.dlx.sig")
    assert done.returncode == 0, done.stderr
    assert run("selftest", "X.dlx", "--threads=1", "--require-signature", "--certificates", "root.pem")[0] == 0


def test_a_key_with_a_password(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "k.pem", private_pem(make_key(), b"secret"))
    monkeypatch.setenv(PASSWORD_VARIABLE, "secret")
    assert run("sign", "X.dlx", "--key", "k.pem", "-o", "elsewhere.sig", "--json")[0] == 0
    assert (folder / "elsewhere.sig").exists()
    code, said = run("sign", "X.dlx", "--key", "k.pem", *CERTIFICATE)
    assert (code, "takes only a key without a password" in said) == (2, True)
    monkeypatch.setenv(PASSWORD_VARIABLE, "guess")
    code, said = run("sign", "X.dlx", "--key", "k.pem")
    assert (code, "no private key that can be read" in said) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nosuch.dlx", "--key", "k.pem"), "no such file; give the path of a .dlx package"),
        (("k.pem", "--key", "k.pem"), "no dlx package"),
        (("X.dlx", "--key", "nosuch.pem"), "cannot be read"),
        (("X.dlx", "--key", "p.pem"), "no private key that can be read"),
        (("X.dlx", "--key", "k.pem", "-o", "X.dlx"), "is the package itself"),
        (("X.dlx", "--key", "k.pem", "-o", "nosuch/x.sig"), "cannot be written"),
        (("X.dlx", "--key", "k.pem", "--chain", "root.pem"), "--chain is there without --certificate"),
        (("X.dlx", "--key", "k.pem", "--certificate", "own.pem"), "is there without --chain"),
        (
            ("X.dlx", "--key", "other.pem", *CERTIFICATE),
            "is of another key than --key",
        ),
        (("X.dlx", "--key", "k.pem", "--certificate", "useless.pem", "--chain", "root.pem"), "is not for signing"),
        (
            ("X.dlx", "--key", "k.pem", "--certificate", "p.pem", "--chain", "p.pem"),
            "--certificate p.pem: cannot be read",
        ),
        (("X.dlx", "--key", "k.pem", "--certificate", "own.pem", "--chain", "p.pem"), "--chain p.pem: cannot be used"),
    ],
)
def test_what_cannot_be_signed(run: Run, arguments: tuple[str, ...], message: str) -> None:
    code, said = run("sign", *arguments)
    assert (code, message in said) == (2, True), said
    assert not Path("X.dlx.sig").exists()


def test_a_damaged_package_is_not_signed(folder: Path, run: Run) -> None:
    data = bytearray((folder / "X.dlx").read_bytes())
    data[5000] ^= 1
    (folder / "X.dlx").write_bytes(data)
    assert run("sign", "X.dlx", "--key", "k.pem")[0] == 2


def test_model_signing_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model_signing.hashing", None)
    code, said = run("sign", "X.dlx", "--key", "k.pem")
    assert (code, "signing needs model-signing" in said) == (4, True)


def test_a_key_of_another_curve(folder: Path, run: Run) -> None:
    curve: Any = ec.SECP256K1()
    write(folder / "k.pem", private_pem(make_key(curve)))
    code, said = run("sign", "X.dlx", "--key", "k.pem")
    assert (code, "the key is secp256k1" in said) == (2, True)


def test_a_chain_that_does_not_vouch_for_the_certificate_signs_nothing(folder: Path, run: Run) -> None:
    write(folder / "foreign.pem", certificate_pem(make_certificate("root", make_key(), ca=True)))
    code, said = run("sign", "X.dlx", "--key", "k.pem", "--certificate", "own.pem", "--chain", "foreign.pem")
    assert code == 2, said
    assert not (folder / "X.dlx.sig").exists()
