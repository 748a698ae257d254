"""The checkpoints of one training run: written aside and moved, read back only if whole. No pickle."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dlx_deploy.errors import StoreError
from dlx_deploy.nn.artifact import portable

__all__ = ["latest", "section", "write"]

log = logging.getLogger(__name__)

_SCHEMA = 2
_KEPT = 2


def write(folder: Path, epoch: int, run: str, tensors: Mapping[str, Tensor], history: Mapping[str, Any]) -> None:
    """Keep the state after ``epoch`` finished epochs in ``folder``, and that of one epoch before it.

    ``run`` is the digest of all that makes this run what it is; ``history`` is JSON. A checkpoint exists once its
    ``.json`` does, which holds the digest of the tensors beside it.

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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / f"epoch-{epoch:05d}.safetensors", data)
        text = json.dumps(record, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
        _replace(folder / f"epoch-{epoch:05d}.json", text.encode())
        for old in _records(folder)[_KEPT:]:
            old.unlink()
            old.with_suffix(".safetensors").unlink(missing_ok=True)
    except OSError as e:
        raise StoreError(f"{folder}: cannot write a checkpoint ({e.strerror}); free space or mend the folder") from e


def latest(folder: Path, run: str) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
    """Epochs done, tensors and history of the newest whole checkpoint of ``run``; ``0, {}, {}`` if there is none."""
    for path in _records(folder):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["schema"] != _SCHEMA or record["run"] != run:
                log.warning("%s: belongs to another run; passed over", path)
                continue
            data = path.with_suffix(".safetensors").read_bytes()
            if hashlib.sha256(data).hexdigest() != record["sha256"]:
                raise ValueError("its tensors are not those that were written")
            return int(record["epoch"]), load(data), dict(record["history"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as e:
            log.warning("%s: damaged (%s); an older checkpoint is taken", path, e)
    return 0, {}, {}


def section(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors under ``NAME.``, without it."""
    prefix = f"{name}."
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def _records(folder: Path) -> list[Path]:
    return sorted(folder.glob("epoch-*.json"), reverse=True)


def _replace(path: Path, data: bytes) -> None:
    aside = path.with_name(path.name + ".tmp")
    aside.write_bytes(data)
    os.replace(aside, path)
