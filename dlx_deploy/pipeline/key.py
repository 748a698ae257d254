"""The cache key of a step: everything that decides its bytes, and why two keys differ."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import msgspec

from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.stage import Stage

__all__ = ["KeyDocument", "differences", "key_document", "key_of", "tool_versions"]

SCHEMA = 1


class KeyDocument(msgspec.Struct, frozen=True):
    """What a key is the hash of. Not in it: paths, times, host names, thread counts, log level.

    ``host`` is empty unless the stage measures this machine.
    """

    schema: int
    stage: str
    version: int
    seed: int
    params: dict[str, Any]
    inputs: dict[str, str]
    outputs: list[str]
    tools: dict[str, str]
    target: dict[str, Any]
    host: dict[str, Any]


def tool_versions(distributions: Sequence[str]) -> dict[str, str]:
    """Distribution → installed version, ``"missing"`` where it is not installed."""
    versions = {}
    for name in distributions:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "missing"
    return versions


def key_document(
    stage: Stage[Any],
    params: msgspec.Struct,
    inputs: Mapping[str, str],
    target: Any,
    seed: int,
    host: Mapping[str, Any],
) -> KeyDocument:
    """The key document of ``stage`` with these parameters, input digests (name → hex), target and seed."""
    return KeyDocument(
        schema=SCHEMA,
        stage=stage.name,
        version=stage.version,
        seed=seed,
        params=_plain(params),
        inputs=dict(inputs),
        outputs=sorted(stage.outputs),
        tools=tool_versions(stage.tools),
        target={name: _plain(getattr(target, name)) for name in stage.uses},
        host=dict(host) if stage.measures_host else {},
    )


def key_of(document: KeyDocument) -> str:
    """The whole SHA-256 (64 hex digits) of the document's canonical JSON."""
    return hashlib.sha256(canonical_json(document)).hexdigest()


def differences(old: KeyDocument, new: KeyDocument) -> list[str]:
    """What changed from ``old`` to ``new``, a short phrase each: ``params.epochs: 5 → 6``."""
    before, after = (dict(_flatten(msgspec.to_builtins(d), ())) for d in (old, new))
    phrases = []
    for path in sorted(before.keys() | after.keys()):
        if before.get(path, _ABSENT) != after.get(path, _ABSENT):
            phrases.append(f"{'.'.join(path)}: {_short(path, before)} → {_short(path, after)}")
    return phrases


def _plain(value: Any) -> Any:
    """``value`` as what JSON can hold, so that a document read back equals the one written (tuples become lists)."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _flatten(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flatten(item, (*path, str(key)))
    else:
        yield path, value


def _short(path: tuple[str, ...], values: Mapping[tuple[str, ...], Any]) -> str:
    if path not in values:
        return "absent"
    return str(values[path])[:12] if path[0] == "inputs" else repr(values[path])


_ABSENT = object()
