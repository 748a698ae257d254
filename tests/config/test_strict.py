"""Strict TOML."""

from __future__ import annotations

import msgspec

from dlx_deploy.config import Config
from dlx_deploy.config.strict import decode, nearest


def test_every_default_is_valid_when_written_out() -> None:
    assert decode(msgspec.to_builtins(Config()), Config, "round trip") == Config()


def test_nearest() -> None:
    assert nearest("jetsn", ["jetson", "rpi5"]) == "nearest valid name: 'jetson'"
    assert nearest("zzz", ["b", "a"]) == "valid names: a, b"
