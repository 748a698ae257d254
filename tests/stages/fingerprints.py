"""Fingerprints of the code behind each stage; run it to accept a change: ``python tests/stages/fingerprints.py``.

Before you do: would the changed code give other bytes for the same inputs? Then raise the stage's ``version`` too,
or users keep results of the old code.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

from dlx_deploy.stages.recipe import STAGES, load_stage

PATH = Path(__file__).with_suffix(".json")


def sources(module: str) -> list[Path]:
    """The files of a module, or of a package and all below it."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    origin = Path(spec.origin)
    return sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]


def fingerprint(stage: str) -> dict[str, object]:
    """The stage's version and the SHA-256 of all the source that its modules name."""
    record = load_stage(stage)
    digest = hashlib.sha256()
    for module in sorted(record.modules):
        for path in sources(module):
            digest.update(path.read_bytes())
    return {"version": record.version, "sha256": digest.hexdigest()}


def all_fingerprints() -> dict[str, dict[str, object]]:
    """Stage name → fingerprint."""
    return {name: fingerprint(name) for name in STAGES}


if __name__ == "__main__":
    PATH.write_text(json.dumps(all_fingerprints(), indent=1, sort_keys=True) + "\n")
