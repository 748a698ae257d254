"""A rehearsal leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

from .planning import rehearsed


def test_the_default_passes_and_leaves_torch_s_generator_alone(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    rehearsed(tmp_path)
    assert torch.rand(1) == expected
