"""What is done to an exporter's graph, in order."""

from __future__ import annotations

from dlx_deploy.graph.passes.base import Pass
from dlx_deploy.graph.passes.fold import FOLD_WEIGHTS
from dlx_deploy.graph.passes.names import NAME_NODES, STRIP_PREFIX
from dlx_deploy.graph.passes.opset import to_opset
from dlx_deploy.graph.passes.pooling import POOL_GLOBALLY
from dlx_deploy.graph.passes.safe import SAFE_FORMS
from dlx_deploy.graph.passes.tidy import TIDY

__all__ = ["exported_passes"]


def exported_passes(opset: int) -> tuple[Pass, ...]:
    """The passes that make the exporter's graph one that people, quantization and old parsers read.

    Names come after folding, which makes layers of what the exporter wrote as several nodes, and before pooling, which
    goes on from them; prefixes go last, as the scopes that the passes read hold them.
    """
    return (FOLD_WEIGHTS, NAME_NODES, POOL_GLOBALLY, STRIP_PREFIX, to_opset(opset), SAFE_FORMS, TIDY)
