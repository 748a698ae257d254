"""A package's signature verified again on a board, where it lies, by this dlx-deploy's code and the keys named here."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from functools import cache
from typing import Annotated

import msgspec

from dlx_deploy.devices.answers import read_as
from dlx_deploy.devices.asking import BoardFacts
from dlx_deploy.devices.loading import one_source
from dlx_deploy.devices.pushing.checks import Step
from dlx_deploy.devices.sent import sent_source
from dlx_deploy.devices.ssh.connection import Connection
from dlx_deploy.errors import BoardError
from dlx_deploy.runtime.package.bundle import SUFFIX, parse_bundle
from dlx_deploy.runtime.package.keys import read_pem
from dlx_deploy.runtime.package.trust import Trust
from dlx_deploy.runtime.sources import own_sources
from dlx_deploy.runtime.words import line, shortened

__all__ = ["STEP", "Verification", "lacking_verifiers", "verification", "verify_there"]

STEP = "signature"
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


class _Fault(msgspec.Struct, frozen=True):
    said: str
    exit_code: Annotated[int, msgspec.Meta(ge=1, le=255)]


class _Found(msgspec.Struct, frozen=True):
    """What the verifier on a board answers: one of the two."""

    by: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    fault: _Fault | None = None


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


def verify_there(connection: Connection, python: str, package: str, how: Verification) -> Step:
    """What ``python`` on the board finds of the signature beside ``package`` there; no code of the package is run.

    Raises:
        BoardLost: the connection broke off.
        BoardError: the board does not answer, or nonsense.
    """
    began = time.monotonic()
    asked = {"package": package, "signature": f"{package}{SUFFIX}", "trusted": how.trusted}
    said = connection.python(verifying_source(), asked, timeout_s=PATIENCE_S, interpreter=python)
    found, seconds = read_as(said, _Found, connection.name, f"who signed {line(package)}"), time.monotonic() - began
    if found.fault is not None:
        code, words = found.fault.exit_code, line(found.fault.said)
        return Step(name=STEP, exit_code=code, seconds=seconds, answer={}, said=words)
    if found.by is None:
        raise BoardError(f"{connection.name}: answers {shortened(said)} to who signed {line(package)}; push again")
    return Step(name=STEP, exit_code=0, seconds=seconds, answer={"verdict": "pass", "by": line(found.by)})


@cache
def verifying_source() -> str:
    """The runtime's own verifier, with what asks it: nothing of it is taken from what lies on a board."""
    own = own_sources()
    sources = {name: own[f"{name.replace('.', '/')}.py"].decode("utf-8") for name in MODULES}
    return one_source("dlx_trusted", sources, sent_source("verifying"))


def _serves(version: str, name: str) -> bool:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= NEEDS[name]
