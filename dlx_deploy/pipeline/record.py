"""What the store keeps of a finished step beside its outputs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec
from msgspec import UNSET, UnsetType

from dlx_deploy.pipeline.digest import FileDigest, canonical_json
from dlx_deploy.pipeline.key import KeyDocument
from dlx_deploy.pipeline.stage import Curves, Metrics

__all__ = ["SCHEMA", "Corrupt", "FinishedStep", "Record", "StoredOutput"]

SCHEMA = 1


class StoredOutput(msgspec.Struct, frozen=True):
    """One output of a step: the digest that goes downstream, its size and its files."""

    digest: str
    size_bytes: int
    files: dict[str, FileDigest]


class FinishedStep(msgspec.Struct, frozen=True, kw_only=True):
    """What a step was given and what it gave. ``started`` (ISO 8601, UTC) and ``seconds`` are those of its run.

    ``tools`` are the whole versions that made the outputs; of these only a part is in the key. ``peak_memory_mib``: the
    most that the process of the step had in memory, where that is known; ``curves``: how training went, where there was
    any. Records of before have neither.
    """

    step: str
    key: str
    document: KeyDocument
    outputs: dict[str, StoredOutput]
    metrics: Metrics
    started: str
    seconds: float
    tools: dict[str, str] = msgspec.field(default_factory=dict)
    peak_memory_mib: float | UnsetType = UNSET
    curves: Curves | UnsetType = UNSET


class Record(FinishedStep, frozen=True, kw_only=True):
    """What ``record.json`` holds. ``target_name``: for which it was first built.

    ``sha256`` is that of all the other fields: a record that was changed after it was written is damaged.
    """

    schema: int
    target_name: str
    sha256: str = ""

    def digest(self) -> str:
        """What ``sha256`` must be."""
        return hashlib.sha256(canonical_json(msgspec.structs.replace(self, sha256=""))).hexdigest()


@dataclass(frozen=True)
class Corrupt:
    """A record whose outputs are not what it says; ``record`` is None where the record itself cannot be read."""

    what: str
    record: Record | None
