"""Which images a file with a finished network reads, as far as it says so; no onnx and no torch."""

from __future__ import annotations

from pathlib import Path

from dlx_deploy.graph.foreign.program import program_facts
from dlx_deploy.graph.foreign.tokens import reads_tokens
from dlx_deploy.graph.foreign.usable import Picture, picture_of, refuse_inputs, usable_facts
from dlx_deploy.graph.foreign.wire import Value, read_facts

__all__ = ["PROGRAM", "picture_in", "reads_texts", "usable_ends"]

PROGRAM = ".pt2"


def usable_ends(path: Path, texts: bool = False) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    """The inputs and the outputs of the network in ``path``, if it can be used, for images or for ``texts``.

    Raises:
        ConfigError: it cannot be read, or used.
    """
    if path.suffix.lower() != PROGRAM:
        facts = usable_facts(path, texts=texts)
        return tuple(facts.inputs), tuple(facts.outputs)
    program = program_facts(path)
    refuse_inputs(program.inputs, path)
    return program.inputs, program.outputs


def reads_texts(path: Path) -> bool:
    """Whether the network in ``path`` is an ONNX for texts.

    Raises:
        ConfigError: it cannot be read, or is no ONNX model.
    """
    return path.suffix.lower() != PROGRAM and reads_tokens(read_facts(path).inputs)


def picture_in(path: Path) -> Picture | None:
    """The size of the images that the network in ``path`` reads; ``None`` where it takes any.

    Raises:
        ConfigError: as ``usable_ends``.
    """
    inputs, _ = usable_ends(path)
    return picture_of(inputs)
