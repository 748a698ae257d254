"""Networks that do not fit one device: their parameters cut over all processes (FSDP2, Zhao et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from dlx_deploy.nn.training.transfer import trunk_modules

__all__ = ["full", "shard", "shard_like"]


def shard(model: nn.Module, device: torch.device) -> None:
    """Cut every parameter of ``model``, in place, over the processes; a trunk's part is whole while it computes."""
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for module in trunk_modules(model):
        fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def full(tensor: Tensor) -> Tensor:
    """The whole of ``tensor``; for a sharded one every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, model: Tensor) -> Tensor:
    """``tensor``, which every process has, cut as ``model`` is if that is sharded and of its shape."""
    if isinstance(model, DTensor) and tensor.shape == model.shape:
        return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements, src_data_rank=None)
    return tensor
