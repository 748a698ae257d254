"""A network as it learns: forward and backward passes, updates, averaged and best weights, what a checkpoint holds."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dlx_deploy.config import Training
from dlx_deploy.nn.models.outputs import floats
from dlx_deploy.nn.training.batches import Batch
from dlx_deploy.nn.training.checkpoints import section
from dlx_deploy.nn.training.layouts import to_channels_last
from dlx_deploy.nn.training.losses import LossFn
from dlx_deploy.nn.training.optimizers import (
    new_optimizer,
    optimizer_shapes,
    optimizer_state,
    restore_optimizer,
    set_rate,
)
from dlx_deploy.nn.training.sharding import full, shard, shard_like
from dlx_deploy.nn.training.transfer import Transfer, freeze, layer_groups, rate_scales
from dlx_deploy.nn.weights.outside import snapshot
from dlx_deploy.nn.weights.state import (
    check_outside,
    is_json,
    is_outside,
    outside_state,
    packed,
    set_outside,
    set_packed,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Learner"]


class Learner:
    """One network with its optimizer on Accelerate's device."""

    def __init__(
        self, model: nn.Module, settings: Training, accelerator: Accelerator, transfer: Transfer, sharded: bool
    ) -> None:
        self._settings, self._accelerator, self._transfer, self._sharded = settings, accelerator, transfer, sharded
        self._result, self._start = model, snapshot(model)
        # Sharding replaces parameters for good, so it gets a copy.
        self._model = copy.deepcopy(model) if sharded else model
        self._hooks = to_channels_last(self._model, accelerator.device)
        self._groups = layer_groups(model)
        if sharded:
            shard(self._model, accelerator.device)
        else:
            self._model.to(accelerator.device)
        self._optimizer: Any = accelerator.prepare_optimizer(
            new_optimizer(self._model, settings, rate_scales(self._groups, transfer)), device_placement=False
        )
        self._forward: nn.Module | None = None
        average = get_ema_multi_avg_fn(settings.ema_decay)  # type: ignore[no-untyped-call]
        self._averaged = (
            AveragedModel(self._model, multi_avg_fn=average, use_buffers=True) if settings.ema_decay else None
        )
        self._best: dict[str, Tensor] = {}

    def begin_epoch(self, epoch: int) -> None:
        """Training mode, with those layers frozen that ``epoch`` freezes."""
        self._model.train()
        changed = freeze(self._model, self._groups, self._transfer, epoch)
        if self._forward is None or changed:
            self._forward = self._prepared()

    def backward(self, batch: Batch, loss: LossFn, scale: float, first: bool, last: bool) -> Tensor:
        """Add to the gradient ``scale`` times that of the weighted sum of losses; gives back that sum.

        The ``first`` pass after an update starts anew; processes exchange gradients in the ``last`` one before it.
        """
        assert self._forward is not None
        alone = contextlib.nullcontext() if last or self._sharded else self._accelerator.no_sync(self._forward)
        with alone:
            with self._accelerator.autocast():
                answer = self._forward(batch.inputs)
            losses = loss(floats(answer), batch)
            summed = losses.sum() if batch.weights is None else (losses * batch.weights).sum()
            if first:  # not sooner: memory that is freed before the forward pass is paged in again by it
                self._optimizer.optimizer.zero_grad(set_to_none=True)
            self._accelerator.backward(summed * scale)
        return summed.detach()

    def update(self, rate: float) -> Tensor | None:
        """One optimizer step; the gradient's norm before clipping, ``None`` where losses are scaled.

        ``average`` comes after it, and after what else changes the weights.
        """
        set_rate(self._optimizer, rate)
        limit = self._settings.clip_norm or math.inf
        norm = self._accelerator.clip_grad_norm_(self._model.parameters(), limit)
        # Accelerate's wrapper looks for packages on the disk at every step; it is asked where losses are scaled alone.
        (self._optimizer if self._accelerator.scaler is not None else self._optimizer.optimizer).step()
        return None if norm is None or self._accelerator.scaler is not None else full(norm)

    def average(self) -> None:
        """Take the weights as they are now into the moving average, if there is one."""
        if self._averaged is not None:
            self._averaged.update_parameters(self._model)

    @property
    def trained(self) -> nn.Module:
        """The network that updates change."""
        return self._model

    def judged(self) -> nn.Module:
        """The network whose accuracy counts: the averaged one, if there is one."""
        return self._averaged.module if self._averaged is not None else self._model

    def keep_best(self, scores: Sequence[float]) -> None:
        """Remember the weights if the newest accuracy is the best one, where early stopping asks for it."""
        if self._settings.patience and int(np.argmax(scores)) == len(scores) - 1:
            self._best = {k: v.detach().cpu().clone() for k, v in self._all(self.judged()).items()}

    def finish(self, scores: Sequence[float]) -> int:
        """Leave the kept weights in the network, on the CPU, all trainable; the epoch they are of, from 1."""
        state = self._best or {k: v.detach().cpu() for k, v in self._all(self.judged()).items()}
        self._accelerator.unwrap_model(self._forward or self._model, keep_fp32_wrapper=False)
        for hook in self._hooks:
            hook.remove()
        set_packed(self._result.cpu(), state)
        set_outside(self._result, state, self._start)
        for parameter in self._result.parameters():
            parameter.requires_grad, parameter.grad = True, None
        self._result.eval()
        return int(np.argmax(scores)) + 1 if self._best else len(scores)

    def state(self) -> dict[str, Tensor]:
        """All that a later process needs to go on, whole tensors on any device."""
        parts = {"model": self._all(self._model), "best": self._best}
        parts["optimizer"] = dict(optimizer_state(self._model, self._optimizer.optimizer))
        if self._averaged is not None:
            parts["averaged"] = packed(self._averaged)
        return {f"{part}.{name}": full(t) for part, tensors in parts.items() for name, t in tensors.items()}

    def scaler_state(self) -> dict[str, Any]:
        """The loss scale and its history; empty without loss scaling."""
        return dict(self._accelerator.scaler.state_dict()) if self._accelerator.scaler is not None else {}

    def check(self, tensors: Mapping[str, Tensor], history: Mapping[str, Any]) -> None:
        """Nothing, if ``restore`` can go on from ``tensors`` and the loss scale in ``history``.

        Raises:
            ValueError: a tensor is missing, left over, of another shape or not finite, or the loss scale is another.
        """
        weights = packed(self._model)
        best = weights if self._settings.patience else {}
        averaged = {} if self._averaged is None else packed(self._averaged)
        for part, expected in (("model", weights), ("best", best), ("averaged", averaged)):
            stored = section(tensors, part)
            check_outside(stored, self._start)
            inside = {name: tensor for name, tensor in stored.items() if not is_outside(name)}
            _refuse_others(
                part, inside, {k: inside.get(k, t).shape if is_json(k) else t.shape for k, t in expected.items()}
            )
        for name in dict(self._model.named_parameters()):
            if not bool(tensors[f"model.{name}"].isfinite().all()):
                raise ValueError(f"model.{name} is not finite")
        kept = optimizer_shapes(self._model, self._optimizer.optimizer, section(tensors, "optimizer"))
        _refuse_others("optimizer", section(tensors, "optimizer"), kept)
        if history["scaler"].keys() != self.scaler_state().keys():
            raise ValueError(f"its loss scale has {sorted(history['scaler'])}; rule: {sorted(self.scaler_state())}")

    def restore(self, tensors: Mapping[str, Tensor], scaler: Mapping[str, Any]) -> None:
        """Go on from ``state`` and ``scaler_state``."""
        own = self._model.state_dict()
        stored = section(tensors, "model")
        set_packed(self._model, {k: shard_like(v, own[k]) if k in own else v for k, v in stored.items()})
        set_outside(self._model, stored, self._start)
        named = dict(self._model.named_parameters())
        kept = section(tensors, "optimizer").items()
        state = {k: shard_like(v, named[k.partition(".")[2]]) for k, v in kept}
        restore_optimizer(self._model, self._optimizer.optimizer, state)
        self._best = section(tensors, "best")
        if self._averaged is not None:
            set_packed(self._averaged, section(tensors, "averaged"))
        if self._accelerator.scaler is not None and scaler:
            self._accelerator.scaler.load_state_dict(dict(scaler))

    def _all(self, model: nn.Module) -> dict[str, Tensor]:
        """Whole tensors of the state dict of ``model``, and of what has changed outside of it."""
        return {name: full(t) for name, t in {**packed(model), **outside_state(model, self._start)[0]}.items()}

    def _prepared(self) -> nn.Module:
        """The network as Accelerate runs it; made anew when other parameters train, which DDP asks for."""
        if self._sharded:
            return self._model
        if self._forward is not None:
            self._accelerator.unwrap_model(self._forward, keep_fp32_wrapper=False)
            self._accelerator._models.clear()  # it would keep every earlier wrapper, which hold gradients' buckets
        prepared: nn.Module = self._accelerator.prepare_model(self._model)
        return prepared


def _refuse_others(part: str, stored: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> None:
    wrong = sorted(k for k in {*stored, *shapes} if k not in stored or k not in shapes or stored[k].shape != shapes[k])
    if wrong:
        seen = list(stored[wrong[0]].shape) if wrong[0] in stored else "missing"
        raise ValueError(f"{part}.{wrong[0]} is {seen}; rule: {list(shapes.get(wrong[0], ())) or 'not there'}")
