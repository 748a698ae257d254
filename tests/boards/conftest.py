"""A board for the tests marked ``board``, made once and used by all of them; they are skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .board import Board, emulated_board
from .host import aarch64_programs, missing
from .rootfs import Unavailable, root_file_system


@pytest.fixture(scope="session")
def board() -> Iterator[Board]:
    """One that runs."""
    reason = missing()
    if reason:
        pytest.skip(f"no board can be emulated here: {reason}")
    with aarch64_programs() as reason:
        if reason:
            pytest.skip(f"no board can be emulated here: {reason}")
        try:
            root = root_file_system()
        except Unavailable as e:
            pytest.skip(f"no root file system for a board can be made here: {e}")
        with emulated_board(root) as running:
            yield running
