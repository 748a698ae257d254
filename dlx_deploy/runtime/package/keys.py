"""Signatures verified by trusted public keys and certificates: all cryptography is that of two libraries.

A device that requires signatures needs ``cryptography``, and ``pyOpenSSL`` for chains of certificates; no other needs
them.
"""

from __future__ import annotations

import re
from typing import List, Sequence, Tuple

from ..digests import sha256_hex
from ..errors import BackendMissing, InputError, PackageError
from ..files import PathLike, TooLarge, read_file, reason
from ..untyped import Foreign
from ..words import line, said
from .bundle import Bundle

__all__ = [
    "PublicKey",
    "chain_signer",
    "check_curve",
    "fingerprint",
    "key_signer",
    "may_sign",
    "read_pem",
    "read_public_keys",
]

MAX_PEM = 1024**2
PUBLIC_KEY = re.compile(b"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
CURVES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}
"""The curves that model-signing has, and the hash that goes with each."""
PublicKey = Tuple[str, Foreign]
"""Its SHA-256 (of its PEM), and the key of the library."""


def read_pem(path: PathLike) -> bytes:
    """The bytes of a file of keys or certificates.

    Raises:
        InputError: it cannot be read, or is too large.
    """
    try:
        return read_file(path, MAX_PEM)
    except TooLarge as e:
        raise InputError(f"{path}: has {e} bytes; a PEM file has at most {MAX_PEM}") from e
    except (OSError, ValueError) as e:
        raise InputError(f"{path}: cannot be read ({reason(e)}); name the PEM file of a key that you trust") from e


def read_public_keys(path: PathLike) -> List[PublicKey]:
    """The public keys in the PEM file at ``path``: one or, while keys are changed, several.

    Raises:
        InputError: there is none, or one is of another kind. BackendMissing: ``cryptography`` is not here.
    """
    pem = read_pem(path)
    serialization = _cryptography("hazmat.primitives.serialization")
    found = PUBLIC_KEY.findall(pem)
    if not found:
        private = "; it holds a private key, which belongs on no device" if b"PRIVATE KEY" in pem else ""
        raise InputError(
            f"{path}: holds no public key{private}; make it from yours: openssl pkey -in k.pem -pubout -out p.pem"
        )
    keys = []
    for block in found:
        try:
            key = serialization.load_pem_public_key(block)
        except (ValueError, TypeError, _unsupported()) as e:
            raise InputError(f"{path}: a key in it cannot be read ({said(e)}); copy it again") from e
        check_curve(key, str(path))
        keys.append((fingerprint(key), key))
    return keys


def key_signer(bundle: Bundle, keys: Sequence[PublicKey], origin: str) -> str:
    """Who signed ``bundle``, by the SHA-256 of the key: one of ``keys``.

    Raises:
        PackageError: it is signed by a key that is not among them, or the signature is not that of its payload.
    """
    trusted = ", ".join(name for name, _ in keys)
    if bundle.key and bundle.key not in [name for name, _ in keys]:
        raise PackageError(
            f"{origin}: is signed by the key {line(bundle.key)[:64]}, and trusted is {trusted}; refused: have the "
            "package signed by a trusted key, or check which key is its maker's"
        )
    for name, key in keys:
        if bundle.key in ("", name) and _is_signed(bundle, key, origin):
            return f"key {name}"
    raise PackageError(f"{origin}: the signature is not of the key {trusted}: it, or what it signs, was changed")


def chain_signer(bundle: Bundle, roots: bytes, origin: str) -> str:
    """Who signed ``bundle``: the subject of its certificate, which leads to one of the certificates ``roots`` (PEM).

    Certificates are judged at the time from which the signer's is valid, as model-signing does it, so that a signature
    outlives its certificate; nothing here knows of revocation.

    Raises:
        PackageError: no chain to a root, a certificate that is not for signing, or the signature is not of its key.
        InputError: ``roots`` holds no certificate. BackendMissing: ``cryptography`` or ``pyOpenSSL`` is not here.
    """
    x509, crypto = _cryptography("x509"), _openssl()
    store = crypto.X509Store()
    for root in _roots(roots):
        store.add_cert(crypto.X509.from_cryptography(root))
    try:
        own, *others = [x509.load_der_x509_certificate(der) for der in bundle.chain]
        store.set_time(getattr(own, "not_valid_before_utc", None) or own.not_valid_before)
        given = [crypto.X509.from_cryptography(one) for one in others]
        crypto.X509StoreContext(store, crypto.X509.from_cryptography(own), given).verify_certificate()
        subject, fit, key = own.subject.rfc4514_string(), may_sign(own), own.public_key()
    except (ValueError, TypeError, crypto.X509StoreContextError, crypto.Error, _unsupported()) as e:
        raise PackageError(
            f"{origin}: its certificate is not from the trusted ones ({said(e)}); refused: check whose package it is, "
            "and that the file of trusted certificates holds the root"
        ) from e
    if not fit:
        raise PackageError(
            f"{origin}: the certificate of {line(subject)} is not for signing; it needs the key usage digitalSignature "
            "or the extended one codeSigning"
        )
    check_curve(key, origin)
    if not _is_signed(bundle, key, origin):
        raise PackageError(f"{origin}: the signature is not of its certificate: it, or what it signs, was changed")
    return f"certificate {line(subject)}"


def _roots(pem: bytes) -> Sequence[Foreign]:
    x509 = _cryptography("x509")
    blocks = re.findall(b"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", pem, re.DOTALL)
    try:
        found = [x509.load_pem_x509_certificate(block) for block in blocks]
    except ValueError as e:
        raise InputError(f"a trusted certificate cannot be read ({said(e)}); copy it again") from e
    if not found:
        raise InputError("the file of trusted certificates holds none; give the root's, in PEM")
    return found


def may_sign(certificate: Foreign) -> bool:
    """Whether a certificate is for signing files."""
    x509 = _cryptography("x509")
    try:
        if certificate.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature:
            return True
    except x509.ExtensionNotFound:
        pass
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return x509.oid.ExtendedKeyUsageOID.CODE_SIGNING in usage


def _is_signed(bundle: Bundle, key: Foreign, origin: str) -> bool:
    ec, hashes = _cryptography("hazmat.primitives.asymmetric.ec"), _cryptography("hazmat.primitives.hashes")
    algorithm = ec.ECDSA(getattr(hashes, CURVES[check_curve(key, origin)])())
    try:
        key.verify(bundle.signature, bundle.signed, algorithm)
    except _cryptography("exceptions").InvalidSignature:
        return False
    return True


def check_curve(key: Foreign, origin: str) -> str:
    """The name of the curve of a public or private key.

    Raises:
        InputError: it is not one of those that model-signing has.
    """
    name = getattr(getattr(key, "curve", None), "name", type(key).__name__)
    if name not in CURVES:
        raise InputError(f"{origin}: the key is {name}; must be of an elliptic curve: {', '.join(CURVES)}")
    return str(name)


def fingerprint(key: Foreign) -> str:
    """The SHA-256 of a public key's PEM, by which model-signing names it."""
    serialization = _cryptography("hazmat.primitives.serialization")
    pem: bytes = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return sha256_hex(pem)


def _unsupported() -> "type[Exception]":
    found: "type[Exception]" = _cryptography("exceptions").UnsupportedAlgorithm
    return found


def _cryptography(module: str) -> Foreign:
    return _library(f"cryptography.{module}", "cryptography>=3.4")


def _openssl() -> Foreign:
    return _library("OpenSSL.crypto", "pyOpenSSL")


def _library(module: str, requirement: str) -> Foreign:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as e:
        raise BackendMissing(
            f"a signature is required, and verifying it needs {requirement.partition('>')[0]}, which is not here "
            f"({said(e)}); install it: pip install '{requirement}'"
        ) from e
