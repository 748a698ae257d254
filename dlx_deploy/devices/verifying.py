"""A package's signature verified again on a board, where it lies, by this dlx-deploy's code and the keys named here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated

import msgspec

from dlx_deploy.devices.answers import read_as
from dlx_deploy.devices.asking import BoardFacts
from dlx_deploy.devices.loading import one_source
from dlx_deploy.devices.sent import sent_source
from dlx_deploy.devices.ssh.connection import Connection
from dlx_deploy.errors import BoardError
from dlx_deploy.runtime.package.bundle import parse_bundle
from dlx_deploy.runtime.package.keys import read_pem
from dlx_deploy.runtime.package.trust import Trust
from dlx_deploy.runtime.sources import own_sources
from dlx_deploy.runtime.words import line, shortened

__all__ = ["Fault", "Found", "Verification", "lacking_verifiers", "signer_there", "verification"]

MODULES = (
    *("words", "errors", "files", "untyped", "strict_json", "records", "digests"),
    *("package.bundle", "package.keys", "package.trust"),
)
"""Of the runtime, those that verify, each behind what it imports."""
NEEDS = {"cryptography": (3, 4), "pyopenssl": (20, 0)}
"""Distribution → the oldest version that verifies; the second for certificates alone."""
PATIENCE_S = 600.0
"""A digest of a large package on a slow card takes minutes."""


class Verification(msgspec.Struct, frozen=True):
    """How a signature is verified: what is ``trusted``, PEM by the name of a ``Trust``'s field; what ``needs`` be there
    for it; ``by`` whom it was found to be here."""

    trusted: Mapping[str, str]
    needs: tuple[str, ...]
    by: str


class Fault(msgspec.Struct, frozen=True):
    """Why a signature does not hold: an error of the runtime, by its ``kind``."""

    kind: str
    said: str
    exit_code: Annotated[int, msgspec.Meta(ge=1, le=255)]


class Found(msgspec.Struct, frozen=True):
    """What a verifier on a board finds: who signed, ``by``, or the ``fault``."""

    by: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    fault: Fault | None = None


def verification(trust: Trust, by: str, signature: bytes) -> Verification:
    """How ``signature``, which ``trust`` has found to be ``by`` somebody, is verified elsewhere.

    Raises:
        InputError: what is trusted cannot be read any more. PackageError: it is no signature.
    """
    named = {"public_key": trust.public_key, "certificates": trust.certificates}
    trusted = {name: read_pem(path).decode("utf-8", "replace") for name, path in named.items() if path is not None}
    needs = tuple(NEEDS) if parse_bundle(signature, "the signature").chain else ("cryptography",)
    return Verification(trusted, needs, by)


def lacking_verifiers(how: Verification | None, facts: BoardFacts) -> tuple[str, ...]:
    """The distributions that have to come before a board can verify, as they are missing there or too old."""
    return tuple(name for name in (how.needs if how else ()) if not _serves(facts.versions.get(name, ""), name))


def signer_there(connection: Connection, package: str, signature: str, how: Verification, python: str = "") -> Found:
    """What is found of ``signature`` and ``package`` there, of which no code is run. ``python``: another one there than
    the connection's.

    Raises:
        BoardLost: the connection broke off.
        BoardError: the board does not answer, or nonsense.
    """
    asked = {"package": package, "signature": signature, "trusted": how.trusted}
    said = connection.python(verifying_source(), asked, timeout_s=PATIENCE_S, interpreter=python)
    found = read_as(said, Found, connection.name, f"who signed {line(package)}")
    if found.fault is None and found.by is None:
        raise BoardError(f"{connection.name}: answers {shortened(said)} to who signed {line(package)}; try again")
    return found


@cache
def verifying_source() -> str:
    """The runtime's own verifier, with what asks it: nothing of it is taken from what lies on a board."""
    own = own_sources()
    sources = {name: own[f"{name.replace('.', '/')}.py"].decode("utf-8") for name in MODULES}
    return one_source("dlx_trusted", sources, sent_source("verifying"))


def _serves(version: str, name: str) -> bool:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= NEEDS[name]
