"""The checkpoints of one training run: written aside and moved, read back only if whole. No pickle.

``epoch-N.json`` holds the digest of the tensors beside it and, as ``digest``, that of all that it says itself.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dlx_deploy.errors import StoreError
from dlx_deploy.nn.weights.network import portable
from dlx_deploy.runtime.files import write_atomically

__all__ = ["latest", "section", "write"]

log = logging.getLogger(__name__)

_SCHEMA = 4
_KEPT = 2
_MOST = 99_999
"""Epochs: their number has five digits in a file's name."""

Check = Callable[[Mapping[str, Tensor], Mapping[str, Any]], None]
"""Raises ValueError where tensors and history are not those of the run that asks for them."""


def write(folder: Path, epoch: int, run: str, tensors: Mapping[str, Tensor], history: Mapping[str, Any]) -> None:
    """Keep the state after ``epoch`` finished epochs in ``folder``, and that of one epoch before it.

    ``run`` is the digest of all that makes this run what it is; ``history`` is JSON, with the list ``losses`` and the
    list ``scores`` of as many numbers as epochs. A checkpoint exists once its ``.json`` does.

    Raises:
        StoreError: the folder cannot be written.
    """
    data = save(portable(tensors))
    record = {
        "schema": _SCHEMA,
        "epoch": epoch,
        "run": run,
        "sha256": hashlib.sha256(data).hexdigest(),
        "history": history,
    }
    record["digest"] = _digest(record)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{_stem(epoch)}.safetensors", data)
        text = json.dumps(record, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
        write_atomically(folder / f"{_stem(epoch)}.json", text.encode())
        for old in _records(folder)[_KEPT:]:
            old.unlink()
            old.with_suffix(".safetensors").unlink(missing_ok=True)
    except OSError as e:
        raise StoreError(f"{folder}: cannot write a checkpoint ({e.strerror}); free space or mend the folder") from e


def latest(
    folder: Path, run: str, epochs: int = _MOST, check: Check | None = None
) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
    """Epochs done, tensors and history of the newest whole checkpoint of ``run``; ``0, {}, {}`` if there is none.

    Whole: every byte is as it was written, it is of an epoch from 1 to ``epochs``, and ``check`` accepts it. What is
    not is passed over with a warning, and so is what another run wrote.
    """
    for path in _records(folder):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["schema"] != _SCHEMA or record["run"] != run:
                log.warning("%s: belongs to another run; passed over", path)
                continue
            _refuse_damaged(path, record, epochs)
            data = path.with_suffix(".safetensors").read_bytes()
            if hashlib.sha256(data).hexdigest() != record["sha256"]:
                raise ValueError("its tensors are not those that were written")
            tensors, history = load(data), dict(record["history"])
            if check is not None:
                check(tensors, history)
            return int(record["epoch"]), tensors, history
        except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as e:
            log.warning("%s: damaged (%s); an older checkpoint is taken, or training starts anew", path, e)
    return 0, {}, {}


def _refuse_damaged(path: Path, record: Mapping[str, Any], epochs: int) -> None:
    if record["digest"] != _digest(record):
        raise ValueError("it does not say what was written")
    epoch, history = record["epoch"], record["history"]
    if type(epoch) is not int or not 1 <= epoch <= epochs or path.stem != _stem(epoch):
        raise ValueError(f"its epoch is {epoch!r}; rule: that of its name, from 1 to {epochs}")
    for key, most in (("losses", math.inf), ("scores", 1.0)):
        values = history[key]
        right = len(values) == epoch and all(isinstance(v, float) and math.isfinite(v) and v <= most for v in values)
        if not right or (key == "scores" and min(values) < 0):
            raise ValueError(f"its {key} are {values!r}; rule: {epoch} finite numbers, scores from 0 to 1")


def _digest(record: Mapping[str, Any]) -> str:
    """The SHA-256 of all that the record says but its own ``digest``."""
    said = {key: value for key, value in record.items() if key != "digest"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _stem(epoch: int) -> str:
    return f"epoch-{epoch:05d}"


def section(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors under ``NAME.``, without it."""
    prefix = f"{name}."
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def _records(folder: Path) -> list[Path]:
    return sorted(folder.glob("epoch-*.json"), reverse=True)
