"""A signature file as OpenSSF's model-signing writes it: a Sigstore bundle around an in-toto statement of one file.

Read strictly and with nothing but the standard library. What the statement says counts only once the signature over it
has been verified (``keys``, ``certificates``).
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Dict, List, Tuple

from ..digests import sha256_hex
from ..errors import PackageError
from ..records import record
from ..strict_json import from_json
from ..words import shortened

__all__ = ["MAX_SIGNATURE", "SUFFIX", "Bundle", "parse_bundle", "signed_digest"]

SUFFIX = ".sig"  # of a package's signature, beside it
MAX_SIGNATURE = 1024**2  # bytes; a chain of certificates takes a few thousand
MAX_CHAIN = 16
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"
HEX = re.compile("[0-9a-f]{64}")
REMEDY = "sign the package again: dlx-deploy sign, or model_signing sign key"


@record
class Bundle:
    """``payload`` is what was signed, ``signature`` the DER of an ECDSA signature over ``signed``.

    ``key``: the SHA-256 of the signer's public key in PEM, if it says so; ``chain``: DER certificates, the signer's
    first, and nothing where it was signed by a bare key.
    """

    payload: bytes
    signature: bytes
    key: str
    chain: Tuple[bytes, ...]

    @property
    def signed(self) -> bytes:
        """The bytes that the signature is over: DSSE's pre-authentication encoding of the payload."""
        head = f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(self.payload)} "
        return head.encode("ascii") + self.payload


def parse_bundle(data: bytes, origin: str) -> Bundle:
    """The bundle that ``data`` holds; nothing in it is believed yet. ``origin`` names it in messages.

    Raises:
        PackageError: no JSON, another format, a field that is missing or of the wrong kind, or a keyless signature.
    """
    read = _Reader(data, origin, "the signature")
    read.exactly("mediaType", MEDIA_TYPE)
    material = read.table("verificationMaterial")
    if "certificate" in material:
        raise PackageError(
            f"{origin}: is a keyless Sigstore signature, which only Sigstore's service can vouch for; verify it by "
            f"model_signing verify sigstore, or {REMEDY} --key"
        )
    read.exactly("dsseEnvelope.payloadType", PAYLOAD_TYPE)
    read.items("dsseEnvelope.signatures", 1)
    chain: Tuple[bytes, ...] = ()
    if "x509CertificateChain" in material:
        certificates = read.items("verificationMaterial.x509CertificateChain.certificates", MAX_CHAIN)
        where = "verificationMaterial.x509CertificateChain.certificates"
        chain = tuple(read.base64(f"{where}.{i}.rawBytes") for i in range(len(certificates)))
    elif "publicKey" not in material:
        raise PackageError(f"{origin}: verificationMaterial names neither publicKey nor x509CertificateChain; {REMEDY}")
    hint = "" if chain else read.table("verificationMaterial.publicKey").get("hint", "")
    payload, signature = read.base64("dsseEnvelope.payload"), read.base64("dsseEnvelope.signatures.0.sig")
    return Bundle(payload, signature, hint if isinstance(hint, str) else "", chain)


def signed_digest(payload: bytes, origin: str) -> str:
    """The SHA-256, in hexadecimal, of the one file that a verified ``payload`` is about.

    Raises:
        PackageError: it is no statement of model-signing, or one of a folder, of parts of a file, or by another hash.
    """
    read = _Reader(payload, origin, "the signed statement")
    read.exactly("_type", STATEMENT)
    read.exactly("predicateType", PREDICATE)
    read.exactly("predicate.serialization.method", "files")
    read.items("predicate.resources", 1)
    read.exactly("predicate.resources.0.name", ".")
    read.exactly("predicate.resources.0.algorithm", "sha256")
    read.items("subject", 1)
    digest = read.digest("predicate.resources.0.digest")
    # model-signing's digest of a model: that of its files' digests, one after the other.
    read.exactly("subject.0.digest.sha256", sha256_hex(bytes.fromhex(digest)))
    return digest


class _Reader:
    """Typed access to the values of a JSON document by path; what is wrong names the path, the value and the rule."""

    def __init__(self, data: bytes, origin: str, what: str) -> None:
        self._origin, self._what = origin, what
        try:
            self._root = from_json(data)
        except ValueError as e:
            raise PackageError(f"{origin}: {what} is not JSON ({e}); copy it again, or {REMEDY}") from e

    def at(self, path: str) -> object:
        """The value at ``path``, ``None`` where there is none."""
        value = self._root
        for part in path.split("."):
            if isinstance(value, dict):
                value = value.get(part)
            elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
                value = value[int(part)]
            else:
                return None
        return value

    def exactly(self, path: str, wanted: str) -> None:
        """Refuses any other value at ``path``."""
        if self.at(path) != wanted:
            raise self.wrong(path, f"must be {wanted!r}")

    def table(self, path: str) -> Dict[str, object]:
        """The table at ``path``."""
        value = self.at(path)
        if not isinstance(value, dict):
            raise self.wrong(path, "must be a table")
        return value

    def items(self, path: str, most: int) -> List[object]:
        """The list at ``path``, of 1 to ``most`` values."""
        value = self.at(path)
        if not isinstance(value, list) or not 1 <= len(value) <= most:
            raise self.wrong(path, f"must be a list of {'one' if most == 1 else f'1 to {most}'}")
        return value

    def base64(self, path: str) -> bytes:
        """The bytes behind the Base64 at ``path``."""
        value = self.at(path)
        try:
            return base64.b64decode(value if isinstance(value, str) else "=", validate=True)
        except (binascii.Error, ValueError) as e:
            raise self.wrong(path, "must be Base64") from e

    def digest(self, path: str) -> str:
        """The SHA-256 in hexadecimal at ``path``."""
        value = self.at(path)
        if not isinstance(value, str) or not HEX.fullmatch(value):
            raise self.wrong(path, "must be 64 hexadecimal digits")
        return value

    def wrong(self, path: str, rule: str) -> PackageError:
        """The error for the value at ``path``."""
        return PackageError(f"{self._origin}: {self._what}: {path} is {shortened(self.at(path))}; {rule}; {REMEDY}")
