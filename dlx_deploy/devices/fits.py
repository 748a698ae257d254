"""Whether a board is the one that a target describes."""

from __future__ import annotations

from dlx_deploy.errors import BoardUnfit
from dlx_deploy.runtime.words import line
from dlx_deploy.targets import Host, Profile

__all__ = ["check_fits"]

REMEDY = "give the board that the target describes, or another --target"


def check_fits(name: str, seen: Host, profile: Profile) -> None:
    """Refuses the board ``name``, whose processor was ``seen``, where ``profile`` does not describe it.

    Raises:
        BoardUnfit: it has another architecture, or its device tree names another board.
    """
    if seen.arch != profile.arch:
        raise BoardUnfit(f"{name} is {line(seen.arch)}, and {profile.name} is {profile.arch}; {REMEDY}")
    if profile.device_tree_model not in seen.board:
        board = line(seen.board) or "a machine without a device tree"
        raise BoardUnfit(f"{name} is {board}, and {profile.name} is {profile.device_tree_model}; {REMEDY}")
