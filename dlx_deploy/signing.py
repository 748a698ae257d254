"""Packages signed by the library that defines the format, OpenSSF's model-signing; a device verifies without it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx_deploy.errors import ConfigError, EnvironmentMissing
from dlx_deploy.extras import install_command
from dlx_deploy.runtime.files import read_file, reason, write_atomically
from dlx_deploy.runtime.package.bundle import MAX_SIGNATURE, SUFFIX, parse_bundle
from dlx_deploy.runtime.scratch import Scratch
from dlx_deploy.runtime.views import lines_of
from dlx_deploy.runtime.words import said

if TYPE_CHECKING:
    from dlx_deploy.runtime.package.trust import Signed

__all__ = ["PASSWORD_VARIABLE", "SignedView", "SigningKey", "check_signer", "sign_manifest", "sign_package"]

PASSWORD_VARIABLE = "DLX_DEPLOY_KEY_PASSWORD"
READABLE = 0o644
"""Whatever this process gives its own files, a signature may be read by all."""


@dataclass(frozen=True)
class SigningKey:
    """A maker's private key, and perhaps its certificate and those between that and a root; files of PEM.

    ``option``: by which the key was named.
    """

    key: Path
    certificate: Path | None = None
    chain: tuple[Path, ...] = ()
    option: str = "--key"


@dataclass(frozen=True)
class SignedView:
    """The signature that was written."""

    package: Path
    signed: Signed

    @property
    def data(self) -> dict[str, str]:
        """The files and the signer."""
        return {"package": str(self.package), "signature": self.signed.signature, "by": self.signed.by}

    @property
    def text(self) -> str:
        """The same in two lines."""
        return lines_of([f"{self.package} is signed by {self.signed.by}", f"signature: {self.signed.signature}"])


def sign_package(package: Path, signer: SigningKey, output: Path | None = None) -> SignedView:
    """Write the signature of ``package``, whole or not at all, once it has been verified.

    Raises:
        PackageError: ``package`` is none, or damaged: it is opened first.
        ConfigError: a key, password or certificate that cannot be used; ``output`` cannot be written.
        EnvironmentMissing: model-signing is not here.
    """
    from dlx_deploy.runtime.package.archive import parse_archive, read_bytes
    from dlx_deploy.runtime.package.contents import parse_package

    data = read_bytes(package)
    parse_package(parse_archive(data, str(package)), str(package))
    target = output if output is not None else Path(f"{package}{SUFFIX}")
    if target.exists() and target.samefile(package):
        raise ConfigError(f"--output {target} is the package itself; name another file")
    return _sign(package, data, signer, target, "name another file with --output")


def sign_manifest(manifest: Path, signer: SigningKey) -> SignedView:
    """Write the signature of a build's ``manifest``, with what boards have shown of its package, into a file beside it.

    Raises:
        ConfigError, EnvironmentMissing: as ``sign_package``.
    """
    try:
        data = manifest.read_bytes()
    except OSError as e:
        raise ConfigError(f"{manifest}: cannot be read ({reason(e)})") from e
    target = Path(f"{manifest}{SUFFIX}")
    return _sign(manifest, data, signer, target, "what is in its way must be a file in a folder that can be written")


def check_signer(signer: SigningKey) -> None:
    """Refuses what could not sign later, after work that takes long.

    Raises:
        ConfigError, EnvironmentMissing: as ``sign_package``, whatever is signed.
    """
    _writer(signer)


def _sign(path: Path, data: bytes, signer: SigningKey, target: Path, remedy: str) -> SignedView:
    """Write the signature of ``data``, the bytes of ``path``, whole or not at all, once it has been verified."""
    from dlx_deploy.runtime.package.trust import Signed

    write = _writer(signer)
    with Scratch("dlx-deploy-work") as folder:
        aside, copy = folder / "signature", folder / path.name
        copy.write_bytes(data)  # what was opened is what is signed, whatever happens to the file meanwhile
        write(copy, aside)
        bundle = read_file(aside, MAX_SIGNATURE)
    by = _checked(bundle, data, signer, str(target))
    try:
        write_atomically(target, bundle, READABLE)
    except OSError as e:
        raise ConfigError(f"{target}: cannot be written ({reason(e)}); {remedy}") from e
    return SignedView(path, Signed(by, str(target)))


def _checked(bundle: bytes, data: bytes, signer: SigningKey, origin: str) -> str:
    """Who signed, by the verifier of the devices: what it would refuse is never written."""
    import hashlib

    from dlx_deploy.runtime.errors import PackageError
    from dlx_deploy.runtime.package.bundle import signed_digest
    from dlx_deploy.runtime.package.keys import chain_signer, fingerprint, key_signer, read_pem

    key = _private_key(signer).public_key()
    parsed = parse_bundle(bundle, origin)
    if parsed.chain:
        by = chain_signer(parsed, b"\n".join(read_pem(path) for path in signer.chain), origin)
    else:
        by = key_signer(parsed, [(fingerprint(key), key)], origin)
    if signed_digest(parsed.payload, origin) != hashlib.sha256(data).hexdigest():
        raise PackageError(f"{origin}: the signature is of other bytes than the package; sign it again")
    return by


def _writer(signer: SigningKey) -> Callable[[Path, Path], None]:
    """What writes the signature of a file into another."""
    try:
        hashing, signing = import_module("model_signing.hashing"), import_module("model_signing.signing")
    except ImportError as e:
        raise EnvironmentMissing(f"signing needs model-signing ({said(e)}); {install_command('sign')}") from e
    # No path is left out: what is signed is one file.
    config = signing.Config().set_hashing_config(hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False))
    key = _private_key(signer)
    if signer.certificate is None:
        if signer.chain:
            raise ConfigError("--chain is there without --certificate; give the certificate of the key too")
        return _signing(config.use_elliptic_key_signer(private_key=signer.key, password=_password()))
    if not signer.chain:
        raise ConfigError(
            f"--certificate {signer.certificate} is there without --chain; give those up to the root, be it the root's"
        )
    if _password() is not None:
        raise ConfigError(
            f"{PASSWORD_VARIABLE} is set, and with a certificate model-signing takes only a key without a password; "
            "sign with the key alone, or decrypt it: openssl pkey -in k.pem -out plain.pem"
        )
    _check_certificate(signer.certificate, key)
    try:
        return _signing(
            config.use_certificate_signer(
                private_key=signer.key, signing_certificate=signer.certificate, certificate_chain=signer.chain
            )
        )
    except (OSError, ValueError) as e:
        raise ConfigError(f"--chain {', '.join(map(str, signer.chain))}: cannot be used ({said(e)})") from e


def _signing(config: Any) -> Callable[[Path, Path], None]:
    sign: Callable[[Path, Path], None] = config.sign
    return sign


def _private_key(signer: SigningKey) -> Any:
    """The key of the library ``cryptography``, of a kind that the format has."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from dlx_deploy.runtime.errors import InputError
    from dlx_deploy.runtime.package.keys import check_curve, read_pem

    try:
        key = load_pem_private_key(read_pem(signer.key), _password())
    except InputError as e:  # which speaks of keys that are trusted
        why = reason(e.__cause__) if isinstance(e.__cause__, OSError) else said(e)
        raise ConfigError(
            f"{signer.option} {signer.key}: cannot be read ({why}); name the PEM file of your private key"
        ) from e
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise ConfigError(
            f"{signer.option} {signer.key}: no private key that can be read ({said(e)}); give one in PEM, made for "
            f"instance by openssl ecparam -name prime256v1 -genkey -noout; the password of an encrypted one in "
            f"{PASSWORD_VARIABLE}"
        ) from e
    check_curve(key, str(signer.key))
    return key


def _check_certificate(path: Path, key: Any) -> None:
    from cryptography import x509

    from dlx_deploy.runtime.package.keys import may_sign, read_pem

    try:
        certificate = x509.load_pem_x509_certificate(read_pem(path))
        usable = may_sign(certificate)
    except ValueError as e:
        raise ConfigError(f"--certificate {path}: cannot be read ({said(e)}); give one in PEM") from e
    if certificate.public_key() != key.public_key():
        raise ConfigError(f"--certificate {path}: is of another key than --key; give the two that belong together")
    if not usable:
        raise ConfigError(
            f"--certificate {path}: is not for signing, so no one would accept it; it needs the key usage "
            "digitalSignature or the extended one codeSigning"
        )


def _password() -> bytes | None:
    password = os.environ.get(PASSWORD_VARIABLE)
    return password.encode() if password else None
