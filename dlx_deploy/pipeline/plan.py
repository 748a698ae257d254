"""What a build would do: for each step *hit*, or *run* and why. Nothing is executed and nothing is written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.key import KeyDocument, Plain, differences, key_document, key_of, other_versions, tool_versions
from dlx_deploy.pipeline.record import Corrupt, Record
from dlx_deploy.pipeline.stage import Output, Provenance, Source, Step, Team, Tree
from dlx_deploy.pipeline.store import Store

if TYPE_CHECKING:
    from dlx_deploy.config import Config
    from dlx_deploy.devices.device import Device
    from dlx_deploy.targets import Profile

__all__ = ["Build", "Planned", "Resolver", "plan"]

_NAMED = 3
"""So many of the steps that one waits for are named."""
_PROVENANCE_SCHEMA = 1
"""Of a package's ``manifest.json``."""


@dataclass(frozen=True)
class Build:
    """One target's steps, in an order in which each comes after what it needs."""

    target_name: str
    target: Profile
    steps: Sequence[Step]
    config: Config
    """The whole configuration and the whole profile go into the manifest, not into any key."""
    host: Mapping[str, object] = field(default_factory=dict)
    """This machine, for the manifest alone."""
    device: Device | None = None
    """The target, where it can be measured; its identity enters the keys of the stages that measure it."""
    threads: int = 0
    processes: int = 1
    """Those of the team on this machine, which share its cores; like ``threads`` in no key."""
    team: Team | None = None
    logs: Path | None = None
    """Where training stages write TensorBoard logs."""
    exact_tools: bool = False
    """Whether a result of another patch version of a tool is made again; by default it is used, and that is said."""


@dataclass(frozen=True)
class Planned:
    """What will become of one step. ``key`` is None while an input is not known yet."""

    step: Step
    action: Literal["hit", "run"]
    why: str
    key: str | None = None
    document: KeyDocument | None = None
    record: Record | None = None
    """The finished step on a hit; after damage, the record that the redone outputs are expected to match."""


class Resolver:
    """Walks the steps of one build, learning the outputs of each, to give each its key."""

    def __init__(self, store: Store, build: Build) -> None:
        self._store = store
        self._build = build
        self._done: dict[str, Record] = {}
        self._steps = {step.name: step for step in build.steps}

    def learn(self, step: Step, record: Record) -> None:
        """Remember what ``step`` gave: its digests are the inputs of later keys."""
        self._done[step.name] = record

    def examine(self, step: Step) -> Planned:
        """Look ``step`` up.

        Raises:
            ConfigError: a file or folder that the configuration names does not exist.
        """
        waiting = sorted(name for name in self._upstream(step) if name not in self._done)
        if waiting:
            # A key holds the digests of what earlier steps give, so of a step behind one that must run nobody knows it.
            more = f" and {len(waiting) - _NAMED} more" if len(waiting) > _NAMED else ""
            return Planned(step, "run", f"needs {', '.join(waiting[:_NAMED])}{more}, not built yet")
        digests = {name: self._digest(step, name, source) for name, source in step.inputs.items()}
        build = self._build
        document = key_document(step.stage, step.params, digests, build.target, step.seed, self._host(step))
        key = key_of(document)
        entry = self._store.find(key)
        if isinstance(entry, Record):
            return self._hit(step, key, document, entry)
        if isinstance(entry, Corrupt):
            return Planned(step, "run", f"its entry in the store is damaged: {entry.what}", key, document, entry.record)
        return Planned(step, "run", self._explain(step, document), key, document)

    def _host(self, step: Step) -> Mapping[str, object]:
        """What of a device ``step`` may rest on; ``key_document`` leaves it out of steps that rest on none.

        What a board's kernels would give is computed by those of this machine: on a board a step rests by time alone.
        """
        device = self._build.device
        if device is None or not (device.is_here or step.stage.times_host):
            return {}
        return device.identity

    def _hit(self, step: Step, key: str, document: KeyDocument, record: Record) -> Planned:
        """A hit, unless it was made by another patch version of a tool and that counts."""
        others = ", ".join(other_versions(record.tools, {**record.tools, **tool_versions(step.stage.tools)}))
        if others and self._build.exact_tools:
            return Planned(step, "run", f"made with {others}, and --exact-tools is set", key, document)
        return Planned(step, "hit", f"cached, made with {others}" if others else "cached", key, document, record)

    def provenance(self, step: Step) -> bytes:
        """Canonical JSON of the key, key document and whole tool versions of every step that ``step`` rests on."""
        ancestors: dict[str, Plain] = {}
        todo = sorted(self._upstream(step))
        while todo:
            name = todo.pop()
            if name not in ancestors:
                record = self._done[name]
                document = msgspec.to_builtins(record.document)
                ancestors[name] = {"key": record.key, **document, "tool_versions": record.tools}
                todo += sorted(self._upstream(self._steps[name]))
        return canonical_json({"schema": _PROVENANCE_SCHEMA, "steps": ancestors})

    def path(self, source: Source) -> Path:
        """Where an input lies; not for ``Provenance``, which the run loop writes itself."""
        if isinstance(source, Output):
            return self._store.output_path(self._done[source.step].key, source.name)
        assert not isinstance(source, Provenance)
        return source.root if isinstance(source, Tree) else source

    def outputs(self, step: Step) -> dict[str, Path]:
        """Output name → path of a finished step."""
        return {name: self.path(Output(step.name, name)) for name in step.stage.outputs}

    def _upstream(self, step: Step) -> set[str]:
        return {source.step for source in step.inputs.values() if isinstance(source, Output)}

    def _digest(self, step: Step, name: str, source: Source) -> str:
        if isinstance(source, Output):
            return self._done[source.step].outputs[source.name].digest
        if isinstance(source, Provenance):
            return hashlib.sha256(self.provenance(step)).hexdigest()
        try:
            if isinstance(source, Tree):
                return self._store.digest_of(source.root, source.names(source.root))
            return self._store.digest_of(source)
        except FileNotFoundError as e:
            raise ConfigError(f"{step.name}: {name} {source} does not exist; correct the path in deploy.toml") from e
        except OSError as e:
            raise ConfigError(f"{step.name}: {name} {source} cannot be read: {e.strerror}") from e

    def _explain(self, step: Step, document: KeyDocument) -> str:
        earlier = [r for r in self._store.records() if r.step == step.name]
        if not earlier:
            return "never built"
        if step.stage.uses:  # what was built for another target explains nothing about this one
            earlier = [r for r in earlier if r.target_name == self._build.target_name]
        if not earlier:
            return f"never built for {self._build.target_name}"
        # The nearest of all that was built: "one parameter changed" says more than what differs from the first build.
        phrases = min((differences(r.document, document) for r in earlier), key=len)
        named = [self._name_source(step, phrase) for phrase in phrases]
        return "; ".join(named[:4]) + (f"; and {len(named) - 4} more" if len(named) > 4 else "")

    def _name_source(self, step: Step, phrase: str) -> str:
        path, _, values = phrase.partition(": ")
        source = step.inputs.get(path.removeprefix("inputs."))
        if not path.startswith("inputs.") or source is None:
            return phrase
        origin = f"from {source.step}" if isinstance(source, Output) else "how it was made"
        if isinstance(source, Path | Tree):
            origin = str(self.path(source))
        return f"input {path.removeprefix('inputs.')} ({origin}) changed: {values}"


def plan(build: Build, store: Store) -> list[Planned]:
    """Each step of ``build`` with *hit* or *run because …*.

    After a damaged entry the later steps are planned as if redoing it gave the recorded bytes again.
    """
    resolver = Resolver(store, build)
    planned = []
    for step in build.steps:
        one = resolver.examine(step)
        planned.append(one)
        # Also of an entry that is damaged: the same inputs give the same bytes, so what follows is probably cached.
        if one.record is not None:
            resolver.learn(step, one.record)
    return planned
