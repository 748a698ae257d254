"""The cache key of a step: everything that decides its bytes, and why two keys differ."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata

import msgspec

from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.stage import AnyStage

__all__ = ["KeyDocument", "counted", "differences", "key_document", "key_of", "other_versions", "tool_versions"]

SCHEMA = 2


Plain = dict[str, object]
"""What JSON can hold, by name."""


class KeyDocument(msgspec.Struct, frozen=True):
    """What a key is the hash of. Not in it: paths, times, host names, thread counts, log level.

    ``tools`` holds of each version what counts (see ``counted``). ``host`` is empty unless the stage measures this
    machine.
    """

    schema: int
    stage: str
    version: int
    seed: int
    params: Plain
    inputs: dict[str, str]
    outputs: list[str]
    tools: dict[str, str]
    target: Plain
    host: Plain


def tool_versions(distributions: Sequence[str]) -> dict[str, str]:
    """Distribution → installed version, ``"missing"`` where it is not installed."""
    return {name: _installed(name) for name in distributions}


@functools.cache
def _installed(distribution: str) -> str:
    """Asked once: what is installed says so in a file as long as its README, and each step of a build asks anew."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "missing"


_RELEASE = re.compile(r"(?P<kept>(?:\d+!)?(?P<major>\d+)\.(?P<minor>\d+))(?:\.\d+)*(?:\.post\d+)?(?P<local>\+.+)?")


def counted(version: str) -> str:
    """What of a version decides bytes: major and minor number, and which build it is: ``2.9.1+cpu`` → ``2.9+cpu``.

    A patch release mends and promises the same results. Versions that promise nothing count whole: 0.0.x, candidates,
    development versions, other schemes.
    """
    release = _RELEASE.fullmatch(version)
    if release is None or release["major"] == release["minor"] == "0":
        return version
    return release["kept"] + (release["local"] or "")


def other_versions(made: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """The tools in ``made`` that are here in another version: ``safetensors 0.8.0 (0.8.1 is here)``."""
    return [f"{name} {version} ({here[name]} is here)" for name, version in made.items() if here[name] != version]


def key_document(
    stage: AnyStage,
    params: msgspec.Struct,
    inputs: Mapping[str, str],
    target: object,
    seed: int,
    host: Mapping[str, object],
) -> KeyDocument:
    """The key document of ``stage`` with these parameters, input digests (name → hex), target and seed."""
    return KeyDocument(
        schema=SCHEMA,
        stage=stage.name,
        version=stage.version,
        seed=seed,
        params=_keyed(params),
        inputs=dict(inputs),
        outputs=sorted(stage.outputs),
        tools={name: counted(version) for name, version in tool_versions(stage.tools).items()},
        target=_plain({name: getattr(target, name) for name in stage.uses}) if stage.uses else {},
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


def _keyed(params: msgspec.Struct) -> Plain:
    """What of ``params`` decides bytes. Those that a section names in ``KEYED_WHERE_SET`` came later than stores that
    are still in use: at their defaults nothing is made otherwise, so keys stay what they were."""
    plain, late = _plain(params), getattr(type(params), "KEYED_WHERE_SET", ())
    for field in msgspec.structs.fields(params):
        if field.name in late and getattr(params, field.name) == field.default:
            del plain[field.encode_name]
    return plain


def _plain(value: msgspec.Struct | Mapping[str, object]) -> Plain:
    """``value`` as what JSON can hold, so that a document read back equals the one written (tuples become lists)."""
    return msgspec.json.decode(msgspec.json.encode(value), type=Plain)


def _flatten(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flatten(item, (*path, str(key)))
    else:
        yield path, value


def _short(path: tuple[str, ...], values: Mapping[tuple[str, ...], object]) -> str:
    if path not in values:
        return "absent"
    return str(values[path])[:12] if path[0] == "inputs" else repr(values[path])


_ABSENT = object()
