"""Bias correction: what quantization shifts in the mean of each output channel is taken back in its bias.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv 1906.04721), section
4.2 and appendix D: empirical, each layer seeing those before it as they are corrected.
"""

from __future__ import annotations

from dataclasses import replace

from dlx_deploy.graph.quantization.kit.biases import with_bias
from dlx_deploy.graph.quantization.kit.corrected import mean_errors
from dlx_deploy.graph.quantization.kit.state import Setting, State
from dlx_deploy.progress import Progress

__all__ = ["correct_biases"]

MOST_INPUTS = 64
"""Twice as many gave ResNet-20 the same to 0.1 dB."""


def correct_biases(state: State, setting: Setting, progress: Progress) -> State | None:
    """``state`` with biases that make the mean of every channel on the grid that ships what it is in float32."""
    layers = with_bias(state.model, state.plan.layers_at("int8", "int4", "fp8"))
    if not layers:
        return None
    written = setting.write(replace(state, biases={}))
    some = setting.fitted[:: -(-len(setting.fitted) // MOST_INPUTS)]
    return replace(state, biases=mean_errors(state.model, written, layers, some, progress))
