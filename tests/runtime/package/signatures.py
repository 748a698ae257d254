"""Keys, certificates and signatures in the format of model-signing, made by ``cryptography`` alone."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PAYLOAD_TYPE = "application/vnd.in-toto+json"
HASHES = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}


def make_key(curve: Any = None) -> Any:
    return ec.generate_private_key(curve or ec.SECP256R1())


def public_pem(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem


def private_pem(key: Any, password: bytes | None = None) -> bytes:
    how: Any = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
    return pem


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def statement(data: bytes, **changes: Any) -> dict[str, Any]:
    """What model-signing says of a file that holds ``data``."""
    digest = hashlib.sha256(data)
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "tiny.dlx", "digest": {"sha256": hashlib.sha256(digest.digest()).hexdigest()}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
            "resources": [{"name": ".", "algorithm": "sha256", "digest": digest.hexdigest()}],
        },
        **changes,
    }


def bundle(payload: dict[str, Any], key: Any, chain: list[Any] | None = None) -> dict[str, Any]:
    """``payload`` signed by ``key``, which is named, or vouched for by a ``chain`` of certificates."""
    raw = json.dumps(payload).encode()
    signed = f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(raw)} ".encode() + raw
    signature = key.sign(signed, ec.ECDSA(HASHES[key.curve.key_size]))
    material: dict[str, Any] = {"publicKey": {"hint": hashlib.sha256(public_pem(key)).hexdigest()}, "tlogEntries": []}
    if chain is not None:
        ders = [one.public_bytes(serialization.Encoding.DER) for one in chain]
        material = {"x509CertificateChain": {"certificates": [{"rawBytes": encoded(der)} for der in ders]}}
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": material,
        "dsseEnvelope": {
            "payload": encoded(raw),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": encoded(signature), "keyid": ""}],
        },
    }


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def make_certificate(name: str, key: Any, issuer: tuple[Any, Any] | None = None, **usage: bool) -> Any:
    """A certificate of ``key``, by itself or by an ``issuer`` (its certificate and key); ``ca``, ``signs``."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime(2020, 1, 1, tzinfo=timezone.utc)
    ca, signs = usage.get("ca", False), usage.get("signs", True)
    flags = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "encipher_only"), False)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(1 + sum(map(ord, name)))
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=365))  # long over: a signature outlives its certificate
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=signs,
                key_agreement=not signs,  # a usage without any is damaged
                key_cert_sign=ca,
                crl_sign=ca,
                decipher_only=False,
                **flags,
            ),
            critical=True,
        )
        .sign(issuer[1] if issuer else key, hashes.SHA256())
    )


def certificate_pem(certificate: Any) -> bytes:
    pem: bytes = certificate.public_bytes(serialization.Encoding.PEM)
    return pem
