"""Whether the graph in torch is the graph, before training and after it."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import nn

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.execution.evaluation import run_onnx
from dlx_deploy.graph.model import to_bytes
from dlx_deploy.graph.samples import Samples
from dlx_deploy.nn.models.outputs import tensors_of
from dlx_deploy.nn.qat.graph_network import GraphNetwork
from dlx_deploy.nn.qat.learned import Learning
from dlx_deploy.nn.training.batches import Feed

__all__ = ["FLOAT_DB", "WRITTEN_DB", "check_border", "check_float", "check_written"]

FLOAT_DB = 60.0
"""Signal-to-noise ratio of float32 sums in another order: torch's against ONNX Runtime's, 100 dB and more as a rule."""
WRITTEN_DB = 40.0
"""Rounding hides it where sums lie on an edge; integers on other scales, or in other places, are 20 to 35 dB apart."""
_CAP_DB = 200.0
_SAME = 1e-4
"""Relative and absolute: of a normalisation in float32, and the same one as a product and a sum."""
_FEW = 64
_BATCH = 32


def check_border(learning: Learning, samples: Samples, feed: Feed) -> None:
    """Nothing, if what the graph makes of stored inputs before its network is what training feeds.

    Raises:
        StageFailed: it is not.
    """
    network = GraphNetwork(learning.model)
    part = samples[:_BATCH]
    (stored,) = part.fitted(network.dims).feed().values()
    rows = torch.from_numpy(stored.copy())
    reads, fed = network.preprocessed(rows).double(), feed(rows).double()
    if reads.shape != fed.shape or not torch.allclose(reads, fed, rtol=_SAME, atol=_SAME):
        apart = f"up to {(reads - fed).abs().max():.3g} apart" if reads.shape == fed.shape else f"{list(fed.shape)}"
        raise StageFailed(
            f"qat: the graph's network reads {list(reads.shape)}, and training would feed it other numbers ({apart}); "
            "rule: a graph normalises as data.mean and data.std say; set qat.enabled = false"
        )


def check_float(learning: Learning, samples: Samples, padding: int) -> None:
    """Nothing, if the graph computes in torch what it computes in ONNX Runtime.

    Raises:
        StageFailed: it does not.
    """
    network = GraphNetwork(learning.model, padding=padding)
    _, sqnr_db = _compared(to_bytes(learning.model), network, samples[:_FEW], exact=False)
    if sqnr_db < FLOAT_DB:
        raise StageFailed(
            f"qat: the graph in torch answers otherwise than in ONNX Runtime ({sqnr_db:.1f} dB); rule: at least "
            f"{FLOAT_DB:.0f} dB; this is a fault of dlx-deploy: please report it, and set qat.enabled = false"
        )


def check_written(written: ModelProto, network: GraphNetwork, samples: Samples, exact: bool) -> tuple[float, float]:
    """The share of decisions that the ``written`` graph and the trained ``network`` agree on, and their SQNR in dB.

    ``exact``: Q/DQ are judged as they are written, and not with this host's kernels.

    Raises:
        StageFailed: they are further apart than rounding explains.
    """
    agreement, sqnr_db = _compared(to_bytes(written), network, samples, exact)
    if sqnr_db < WRITTEN_DB:
        raise StageFailed(
            f"qat: the graph that was written is not the network that was trained: {sqnr_db:.1f} dB, "
            f"{100 * agreement:.1f} % of the decisions; rule: at least {WRITTEN_DB:.0f} dB; this is a fault of "
            "dlx-deploy: please report it, and set qat.enabled = false"
        )
    return agreement, sqnr_db


def _compared(graph: bytes, network: GraphNetwork, samples: Samples, exact: bool) -> tuple[float, float]:
    """Agreement and the lowest SQNR of all outputs."""
    expected = run_onnx(graph, samples, exact)
    found = _answers(network, samples)
    same, sqnr = [1.0], [_CAP_DB]
    for (_, theirs), ours in zip(expected.items(), found, strict=True):
        sqnr.append(_sqnr_db(theirs.astype(np.float64), ours))
        if theirs.ndim > 1 and theirs.shape[1] > 1:
            same.append(float((theirs.argmax(axis=1) == ours.argmax(axis=1)).mean()))
    return min(same), min(sqnr)


def _answers(network: nn.Module, samples: Samples) -> list[NDArray[np.float64]]:
    assert isinstance(network, GraphNetwork)
    parts: list[list[NDArray[np.float64]]] = []
    network.eval()
    with torch.inference_mode():
        for part in samples.batches(_BATCH, fill=False):
            (stored,) = part.fitted(network.dims).feed().values()
            answer = network(network.preprocessed(torch.from_numpy(stored.copy())))
            parts.append([tensor.double().numpy() for tensor in tensors_of(answer)])
    return [np.concatenate(values) for values in zip(*parts, strict=True)]


def _sqnr_db(signal: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    power, noise = float(np.square(signal).sum()), float(np.square(signal - other).sum())
    if not math.isfinite(noise):
        return -_CAP_DB
    if not noise:
        return _CAP_DB
    return max(-_CAP_DB, min(10 * math.log10(power / noise) if power else -_CAP_DB, _CAP_DB))
