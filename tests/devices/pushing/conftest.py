from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.devices.agent import facts
from dlx_deploy.devices.pushing import checks
from dlx_deploy.devices.pushing.push import Pushable, read_pushable
from dlx_deploy.runtime.package.archive import write_archive
from dlx_deploy.runtime.package.contents import assemble
from tests.runtime.conftest import make_images, metadata, tiny_contents, tiny_model

from ..here_board import HereBoard


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HereBoard:
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr(facts, "_versions", lambda python: {})  # asks a process
    made = HereBoard(tmp_path / "home")

    @contextlib.contextmanager
    def measuring(connection: Any, purpose: str, *rest: Any) -> Iterator[None]:
        made.asked.append(f"measures: {purpose}")
        rest[2]()  # as where one waits
        yield

    monkeypatch.setattr(checks, "measuring", measuring)
    return made


@pytest.fixture(scope="session")
def make_package(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny package as a file: of some version, with some fields of ``package.json`` changed; each is made once.

    ``wrong``: its golden answers are not the model's.
    """
    folder, made = tmp_path_factory.mktemp("packages"), {}

    def make(version: str = "1.0.0", wrong: bool = False, **changes: Any) -> Pushable:
        key = f"{version}-{wrong}-{changes}"
        if key not in made:
            target = {"name": "cpu-x86_64", "kind": "cpu", "arch": "x86_64", "title": "any x86-64"}
            fields = metadata(**{"version": version, "target": target, **changes})
            path = folder / f"tiny-{len(made)}.dlx"
            model = {"model": tiny_model(shift=1)} if wrong else {}
            write_archive(path, assemble(tiny_contents(*make_images(8), metadata=fields, **model)))
            made[key] = read_pushable(path, None)
        return made[key]

    return make
