"""The model artifact between torch stages: ``architecture.json``, ``weights.safetensors``, no pickle.

A pruned network is recorded as its base architecture and the channel and head counts that pruning changed.
A network from a user's file carries a copy of that file, so that the folder loads by itself. The weights are the state
dict, the versions of its modules, and what no state dict holds where the constructor would make it otherwise
(``nn/weights/state.py``). Nothing is kept that does not answer as it did once it is loaded again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import torch
from msgspec import field
from msgspec.structs import replace
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.families import is_user
from dlx_deploy.nn.models.inputs import InputSpec
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.models.user import source_path
from dlx_deploy.nn.weights.attention import split_attention
from dlx_deploy.nn.weights.checkpoint import refuse_other_names
from dlx_deploy.nn.weights.heads import head_count, set_heads
from dlx_deploy.nn.weights.outside import Snapshot, changes, describe, leaves, snapshot
from dlx_deploy.nn.weights.reload import refuse_other_answers
from dlx_deploy.nn.weights.state import (
    is_json,
    is_outside,
    module_versions,
    outside_state,
    packed,
    set_outside,
    set_packed,
)
from dlx_deploy.runtime.schemas import newer_schema
from dlx_deploy.runtime.scratch import Scratch

__all__ = [
    "SCHEMA",
    "Architecture",
    "Channels",
    "build",
    "channel_counts",
    "load_model",
    "portable",
    "refuse_unkeepable",
    "resize",
    "save_model",
]

SCHEMA = 5
_SOURCE, _WEIGHTS = "model.py", "weights.safetensors"
_VERSIONS = "versions"
"""The key in the weights' header: module name → version, as JSON, of those that are not 1."""
_ELSEWHERE = 0x5EED
"""Any seed that no build draws weights from."""
_DRAWS = 6
"""How often a user's network is built again to see what is drawn at random."""
_SAMPLES = 8


class Channels(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The channel counts of a convolution, a linear layer or a batch normalisation (where ``in`` equals ``out``)."""

    inputs: int = field(name="in")
    outputs: int = field(name="out")
    groups: int = 1


class Architecture(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that is needed to build the network without its weights.

    ``pruned`` and ``heads`` say by module what pruning left: channel counts, and heads of attention; ``split`` which
    ``nn.MultiheadAttention`` it put in parts.
    ``model`` of a user's file is a path that can be opened while in memory, and ``model.py:FUNCTION`` on disk.
    """

    model: str
    classes: int
    input: InputSpec
    arguments: dict[str, object] = {}
    pruned: dict[str, Channels] = {}
    heads: dict[str, int] = {}
    split: tuple[str, ...] = ()
    source_sha256: str | None = None
    schema: int = SCHEMA


def save_model(folder: Path, model: nn.Module, architecture: Architecture, samples: Tensor | None = None) -> None:
    """Write ``model`` into ``folder``: the same weights give the same bytes. Then load it again and compare.

    ``samples`` is what both must answer alike to in evaluation mode, as the network reads it; none: noise.

    Raises:
        ConfigError: the user's file that the architecture names cannot be read; or the network, built again as a later
            stage does and loaded, gives other answers, names what it lost.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if is_user(architecture.model):
        architecture = _copy_source(folder, architecture)
    text = json.dumps(msgspec.to_builtins(architecture), sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    (folder / "architecture.json").write_text(text, encoding="utf-8")
    architecture = _read_architecture(folder)
    fresh = _built_elsewhere(architecture)
    start = snapshot(fresh)
    if start and is_user(architecture.model):
        start = _unlike(model, start, architecture)
    outside, lost = outside_state(model, start)
    others = {name: version for name, version in module_versions(model).items() if version != 1}
    header = {_VERSIONS: json.dumps(others, sort_keys=True)} if others else None
    (folder / _WEIGHTS).write_bytes(save(portable({**packed(model), **outside}), header))
    _fill(fresh, folder)
    read = architecture.input.drawn(_SAMPLES) if samples is None else samples
    refuse_other_answers(model, fresh, read, _fate_of(lost, model, start))


def load_model(folder: Path) -> tuple[nn.Module, Architecture]:
    """The network in ``folder``, in evaluation mode, and its architecture. Torch's random state is left as it was.

    Raises:
        ConfigError: a file is missing, damaged or newer than this version, or the weights do not fit.
    """
    architecture = _read_architecture(folder)
    model = build(architecture)
    _fill(model, folder)
    return model.eval(), architecture


def refuse_unkeepable(model: nn.Module, architecture: Architecture) -> None:
    """Nothing, if ``model`` could be kept as it is now: what training for hours would only tell at its end.

    Raises:
        ConfigError: as ``save_model``.
    """
    with Scratch("dlx-deploy-kept") as folder:
        save_model(folder, model, architecture)


def build(architecture: Architecture) -> nn.Module:
    """The network of ``architecture``, resized as pruning left it, with weights that mean nothing yet."""
    a = architecture
    with torch.random.fork_rng(devices=[]):
        model = build_model(a.model, a.arguments, a.classes, a.input)
    _split(model, a.split)
    resize(model, a.pruned)
    _set_heads(model, a.heads)
    return model


def channel_counts(model: nn.Module) -> dict[str, Channels]:
    """The channels of every convolution, linear layer and batch normalisation, by module name."""
    counts = ((name, _channels(module)) for name, module in model.named_modules())
    return {name: channels for name, channels in counts if channels is not None}


def resize(model: nn.Module, pruned: Mapping[str, Channels]) -> None:
    """Give the named layers of ``model`` the channel counts in ``pruned``; their weights are fresh zeros.

    Raises:
        ConfigError: ``pruned`` names a module that is not there or has no channels.
    """
    modules = dict(model.named_modules())
    for name, channels in pruned.items():
        module = modules.get(name)
        if module is None or _channels(module) is None:
            raise ConfigError(f"architecture.json: pruned module {name!r} is not in the model; it belongs to another")
        _resize(module, channels)


def _split(model: nn.Module, names: Sequence[str]) -> None:
    try:
        split_attention(model, names)
    except KeyError as e:
        raise ConfigError(
            f"architecture.json: split module {e} is no nn.MultiheadAttention of the model; it belongs to another"
        ) from e


def _set_heads(model: nn.Module, heads: Mapping[str, int]) -> None:
    modules = dict(model.named_modules())
    for name, count in heads.items():
        before = head_count(modules[name]) if name in modules else None
        if name not in modules or not 1 <= count <= (before or count):
            raise ConfigError(
                f"architecture.json: heads of {name!r} is {count}; the model has {before or 'no'} heads there: it "
                "belongs to another"
            )
        set_heads(modules[name], count)


def _built_elsewhere(architecture: Architecture, draw: int = 0) -> nn.Module:
    """The network as another process would build it: with another random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_ELSEWHERE + draw)
        return build(architecture)


def _unlike(model: nn.Module, start: Snapshot, architecture: Architecture) -> Snapshot:
    """``start`` with the values of other builds where they differ: a permutation of four is drawn alike once in 24."""
    for build_number in range(_DRAWS):
        other = snapshot(_built_elsewhere(architecture, build_number + 1))
        differing, _ = changes(leaves(model), other)
        same, _ = changes(leaves(model), start)
        start = {**start, **{name: other[name] for name in differing.keys() - same.keys() if name in other}}
    return start


def _fill(model: nn.Module, folder: Path) -> None:
    path = folder / _WEIGHTS
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        tensors = load_file(path)
        others = json.loads(header.get(_VERSIONS, "{}"))
    except (OSError, SafetensorError, ValueError) as e:
        raise ConfigError(f"{path}: cannot be read ({e}); the model artifact is damaged") from e
    start = snapshot(model)
    own = packed(model)
    inside = {k: own.get(k, t) if is_json(k) else t for k, t in tensors.items() if not is_outside(k)}
    refuse_other_names(own, inside, path)
    versions = {name: others.get(name, 1) for name, _ in model.named_modules(remove_duplicate=False)}
    set_packed(model, tensors, versions)
    set_outside(model, tensors, start)


def _fate_of(lost: Sequence[str], model: nn.Module, start: Snapshot) -> list[str]:
    """What became of the leaves that are lost."""
    now = leaves(model) if lost else {}
    here = {name: describe(leaf.value) for name, leaf in now.items()}
    built = {name: describe(value) for name, value in start.items()}
    return [f"{name} (is {here.get(name, 'gone')}, is built as {built.get(name, 'nothing')})" for name in lost]


def portable(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` as independent, contiguous CPU tensors, sorted by name: what safetensors can hold."""
    return {k: state[k].detach().to("cpu").clone(memory_format=torch.contiguous_format) for k in sorted(state)}


def _channels(module: nn.Module) -> Channels | None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return Channels(inputs=module.in_channels, outputs=module.out_channels, groups=module.groups)
    if isinstance(module, nn.Linear):
        return Channels(inputs=module.in_features, outputs=module.out_features)
    if isinstance(module, _BatchNorm):
        return Channels(inputs=module.num_features, outputs=module.num_features)
    return None


def _resize(module: nn.Module, channels: Channels) -> None:
    shapes: dict[str, tuple[int, ...]]
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        module.in_channels, module.out_channels, module.groups = channels.inputs, channels.outputs, channels.groups
        sides = (channels.outputs, channels.inputs // channels.groups)
        if isinstance(module, nn.ConvTranspose2d):
            sides = (channels.inputs, channels.outputs // channels.groups)
        shapes = {"weight": (*sides, *module.weight.shape[2:])}
    elif isinstance(module, nn.Linear):
        module.in_features, module.out_features = channels.inputs, channels.outputs
        shapes = {"weight": (channels.outputs, channels.inputs)}
    else:
        module.num_features = channels.outputs  # type: ignore[assignment]
        shapes = dict.fromkeys(("weight", "running_mean", "running_var"), (channels.outputs,))
    shapes["bias"] = (channels.outputs,)
    for key, shape in shapes.items():
        old = getattr(module, key, None)
        if isinstance(old, nn.Parameter):
            setattr(module, key, nn.Parameter(torch.zeros(shape, dtype=old.dtype), requires_grad=old.requires_grad))
        elif isinstance(old, Tensor):
            setattr(module, key, torch.zeros(shape, dtype=old.dtype))


def _copy_source(folder: Path, architecture: Architecture) -> Architecture:
    path = source_path(architecture.model)
    try:
        source = path.read_bytes()
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read ({e.strerror}); the model artifact needs a copy of it") from e
    (folder / _SOURCE).write_bytes(source)
    function = architecture.model.rpartition(":")[2]
    return replace(architecture, model=f"{_SOURCE}:{function}", source_sha256=hashlib.sha256(source).hexdigest())


def _read_architecture(folder: Path) -> Architecture:
    path = folder / "architecture.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        refusal = newer_schema(raw.get("schema") if isinstance(raw, dict) else None, SCHEMA)
        if refusal:
            raise ConfigError(f"{path}: {refusal}")
        architecture = msgspec.convert(raw, Architecture)
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read ({e.strerror}); this is no model artifact") from e
    except (ValueError, msgspec.ValidationError) as e:
        raise ConfigError(f"{path}: not an architecture ({e}); the model artifact is damaged") from e
    return _anchor(folder, architecture) if is_user(architecture.model) else architecture


def _anchor(folder: Path, architecture: Architecture) -> Architecture:
    """``architecture`` with the path of its copied source file, checked against the recorded digest."""
    path = folder / _SOURCE
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
    if digest != architecture.source_sha256:
        raise ConfigError(f"{path}: sha256 is {digest}, recorded is {architecture.source_sha256}; the copy is damaged")
    return replace(architecture, model=f"{path}:{architecture.model.rpartition(':')[2]}")
