"""Token-budget batches: sequences of like length together, so that little of a batch is padding.

A plan is made from (lengths, seed, epoch) alone, so that every process computes the same one and takes its part, and a
run that was stopped goes on with it. Every sequence comes exactly once an epoch. A batch is the same whatever the
number of processes that share it: where it cannot be shared evenly some have one sequence more, and none is dropped or
repeated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dlx_deploy.errors import DataError

__all__ = ["padding_share", "plan_batches"]

Indices = npt.NDArray[np.int64]

_SPREAD = 0.1
"""Sequences change places with others at most so much longer or shorter (a share), lest epochs repeat their batches."""


def plan_batches(lengths: Indices, max_tokens: int, seed: int, epoch: int, processes: int = 1) -> list[list[Indices]]:
    """Per step one array of sequence numbers for each process.

    ``lengths``: int64[N], tokens of each sequence. In every step the number of sequences of all parts times the longest
    is at most ``max_tokens``. A part is empty only where a step has fewer sequences than there are processes.

    Raises:
        DataError: a sequence is longer than ``max_tokens``, or there are fewer sequences than processes.
    """
    _refuse(lengths, max_tokens, processes)
    rng = np.random.default_rng([seed, epoch])
    jittered = lengths * rng.uniform(1 - _SPREAD, 1 + _SPREAD, len(lengths))
    batches = _fill(rng.permutation(len(lengths)), jittered, lengths, max_tokens)
    # Every so-manieth of a batch, which is sorted by length: like work for each process.
    return [[batches[i][k::processes] for k in range(processes)] for i in rng.permutation(len(batches))]


def padding_share(plan: Sequence[Sequence[Indices]], lengths: Indices) -> float:
    """The share of tokens in the plan's batches, 0..1, that are padding."""
    parts = [part for step in plan for part in step if len(part)]
    computed = sum(len(part) * int(lengths[part].max()) for part in parts)
    return 1 - sum(int(lengths[part].sum()) for part in parts) / computed


def _fill(order: Indices, keys: npt.NDArray[np.float64], lengths: Indices, max_tokens: int) -> list[Indices]:
    """Parts of the sequences sorted by ``keys``, each as full as the budget allows."""
    ranked = order[np.argsort(keys[order], kind="stable")]
    parts, begin, longest = [], 0, 0
    for end, row in enumerate(ranked):
        longest = max(longest, int(lengths[row]))
        if (end + 1 - begin) * longest > max_tokens:
            parts.append(ranked[begin:end])
            begin, longest = end, int(lengths[row])
    return [*parts, ranked[begin:]]


def _refuse(lengths: Indices, max_tokens: int, processes: int) -> None:
    if len(lengths) < processes:
        raise DataError(f"there are {len(lengths)} sequences for {processes} processes; each needs at least one")
    longest = int(np.argmax(lengths))
    if lengths[longest] > max_tokens:
        raise DataError(
            f"sequence {longest} has {lengths[longest]} tokens and max_tokens is {max_tokens}; a batch must hold the "
            "longest sequence: raise max_tokens"
        )
