from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlx_deploy.config import Training
from dlx_deploy.nn.training.augment import Normalise, drawn_moves, moved
from dlx_deploy.nn.training.batches import ImageFeed, TrainData


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_normalise_is_the_formula_in_channels_last_memory() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 2), dtype=np.uint8)
    mean, std = (0.25, 0.5), (0.1, 0.3)
    seen = Normalise(mean, std)(torch.from_numpy(images))
    expected = ((images / 255 - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2)
    assert (seen.shape, seen.dtype) == ((3, 2, 5, 4), torch.float32)
    assert seen.is_contiguous(memory_format=torch.channels_last)
    assert seen.numpy() == pytest.approx(expected, abs=1e-5)


@given(st.integers(0, 3), st.booleans(), st.integers(0, 999))
def test_each_result_is_some_shift_and_mirroring_of_its_image(shift: int, flip: bool, seed: int) -> None:
    images = torch.arange(2 * 4 * 5).view(2, 4, 5, 1).to(torch.uint8)
    rows = torch.tensor([1, 0, 1])
    seen = moved(images, rows, drawn_moves((4, 5), 3, shift, flip, generator(seed)))
    for result, row in zip(seen, rows, strict=True):
        padded = np.pad(images[row, :, :, 0].numpy(), shift, mode="edge")
        moves = range(2 * shift + 1)
        crops = [padded[y : y + 4, x : x + 5] for y in moves for x in moves]
        allowed = crops + ([c[:, ::-1] for c in crops] if flip else [])
        assert any(np.array_equal(result[:, :, 0].numpy(), a) for a in allowed)


def test_every_image_draws_its_own() -> None:
    image = torch.arange(64, dtype=torch.uint8).view(1, 8, 8, 1)
    seen = moved(image, torch.zeros(400, dtype=torch.int64), drawn_moves((8, 8), 400, 1, True, generator()))
    kinds, counts = np.unique(seen.numpy().reshape(400, -1), axis=0, return_counts=True)
    assert len(kinds) == 18  # 3 x 3 shifts, mirrored or not
    assert counts.min() > 5


def test_the_generator_alone_decides() -> None:
    images, rows = torch.randint(0, 256, (4, 6, 6, 3), dtype=torch.uint8), torch.arange(4)

    def shifted(seed: int) -> torch.Tensor:
        return moved(images, rows, drawn_moves((6, 6), 4, 2, True, generator(seed)))

    first = shifted(1)
    torch.manual_seed(99)
    assert torch.equal(shifted(1), first)
    assert not torch.equal(shifted(2), first)
    assert drawn_moves((6, 6), 4, 0, False, generator()) is None
    assert torch.equal(moved(images, rows, None), images)


def test_maps_move_with_their_images() -> None:
    """A map that is one channel of its image still is, whatever moves; one process's part moves as in the whole."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 6, 6, 1), np.uint8)
    settings = Training(batch_size=20, shift_px=2, flip=True)
    data = TrainData(images, images[..., 0], images, images[..., 0], ImageFeed([0.0], [1.0]), 3, aligned=True)
    source = data.feed.source(data, settings, torch.device("cpu"))
    step = source.plan(0, 2)[0]
    parts = [source.batch(step, process, generator(5)) for process in range(2)]
    for batch in parts:
        assert torch.equal((batch.inputs[:, 0] * 255).round().to(torch.uint8), batch.targets)
    whole = source.batch([np.concatenate(step)], 0, generator(5))
    assert torch.equal(torch.cat([batch.targets for batch in parts]), whole.targets)
    assert not torch.equal(whole.targets, torch.from_numpy(images[np.concatenate(step), ..., 0]))
