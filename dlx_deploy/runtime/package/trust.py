"""Whose packages this machine runs: the signature is verified by a trusted key before anything of a package is parsed.

Asked for by an option, or on a whole machine by its environment: while ``DLX_DEPLOY_PUBLIC_KEY`` or
``DLX_DEPLOY_CERTIFICATES`` names a file of what is trusted, no package without a valid signature is opened.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Optional

from ..digests import sha256_hex
from ..errors import InputError, PackageError
from ..files import PathLike, TooLarge, read_file, reason
from ..records import record

if TYPE_CHECKING:
    from .bundle import Bundle

__all__ = ["CERTIFICATES_VARIABLE", "KEY_VARIABLE", "Signed", "Trust", "required_trust", "trust_of_machine"]

KEY_VARIABLE, CERTIFICATES_VARIABLE = "DLX_DEPLOY_PUBLIC_KEY", "DLX_DEPLOY_CERTIFICATES"


@record
class Signed:
    """A signature that was verified: who made it, and the file that holds it."""

    by: str
    signature: str


@record
class Trust:
    """What is trusted: files of PEM. ``signature``: where it is, ``None``: beside the package, ``X.dlx.sig``.

    ``public_key`` holds the keys of makers, ``certificates`` the roots that vouch for theirs; at least one is there.
    """

    public_key: Optional[PathLike] = None
    certificates: Optional[PathLike] = None
    signature: Optional[PathLike] = None

    def verify(self, data: bytes, package: PathLike) -> Signed:
        """Who signed ``data``, the bytes of the file ``package``.

        Raises:
            PackageError: it has no signature, one by another than the trusted, of another file, or a damaged one.
            InputError: what is trusted cannot be read. BackendMissing: a library for it is not here.
        """
        from .bundle import SUFFIX, parse_bundle, signed_digest  # for who asks for a signature

        path = os.fspath(self.signature) if self.signature is not None else f"{os.fspath(package)}{SUFFIX}"
        bundle = parse_bundle(_read_signature(path, package), path)
        by = self._signer(bundle, path)
        signed, own = signed_digest(bundle.payload, path), sha256_hex(data)
        if signed != own:
            raise PackageError(
                f"{os.fspath(package)}: has SHA-256 {own}, and {path}, signed by {by}, is of a file with {signed}: "
                "changed after it was signed, or the signature of another package; get both again from their maker"
            )
        return Signed(by, path)

    def _signer(self, bundle: Bundle, path: str) -> str:
        from .keys import chain_signer, key_signer, read_pem, read_public_keys

        if bundle.chain:
            if self.certificates is None:
                raise PackageError(
                    f"{path}: is signed with a certificate, and only keys are trusted; name the certificates of its "
                    f"root: --certificates FILE, or {CERTIFICATES_VARIABLE}"
                )
            return chain_signer(bundle, read_pem(self.certificates), path)
        if self.public_key is None:
            raise PackageError(
                f"{path}: is signed with a key, and only certificates are trusted; name the key of its maker: "
                f"--public-key FILE, or {KEY_VARIABLE}"
            )
        return key_signer(bundle, read_public_keys(self.public_key), path)


def trust_of_machine() -> Optional[Trust]:
    """What the environment trusts; ``None``: it asks for no signature.

    Raises:
        InputError: a variable is there and empty, which may be meant either way.
    """
    named = {}
    for variable in (KEY_VARIABLE, CERTIFICATES_VARIABLE):
        value = os.environ.get(variable)
        if value is not None and not value.strip():
            raise InputError(f"{variable} is empty; must name a PEM file of what is trusted, or be unset")
        named[variable] = value
    if not any(named.values()):
        return None
    return Trust(named[KEY_VARIABLE], named[CERTIFICATES_VARIABLE])


def required_trust(asked: Trust, required: bool) -> Optional[Trust]:
    """What a command line trusts: what was ``asked``, completed by the machine's; ``None``: no signature is asked for.

    Raises:
        InputError: a signature is required, and nothing is trusted.
    """
    machine = trust_of_machine()
    if asked.public_key is not None or asked.certificates is not None:
        return asked
    if machine is not None:
        return Trust(machine.public_key, machine.certificates, asked.signature)
    if required or asked.signature is not None:
        raise InputError(
            "a signature is to be verified, and no key is trusted; name one that you have from the package's maker: "
            f"--public-key FILE (or --certificates FILE), or {KEY_VARIABLE} in the environment"
        )
    return None


def _read_signature(path: str, package: PathLike) -> bytes:
    from .bundle import MAX_SIGNATURE

    try:
        return read_file(path, MAX_SIGNATURE)
    except FileNotFoundError as e:
        raise PackageError(
            f"{os.fspath(package)}: a signature is required, and {path} is not there; get it from the package's maker "
            "(dlx-deploy sign makes it), or say where it is: --signature FILE"
        ) from e
    except TooLarge as e:
        raise PackageError(f"{path}: has {e} bytes; a signature has at most {MAX_SIGNATURE}") from e
    except (OSError, ValueError) as e:
        raise PackageError(f"{path}: cannot be read ({reason(e)})") from e
