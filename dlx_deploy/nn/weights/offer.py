"""What to give as the network of a checkpoint that came without one.

It is offered and never taken: shapes do not show activations, strides or groups of equal sizes, so a network that
every tensor fits may still compute something else.
"""

from __future__ import annotations

from pathlib import Path

from dlx_deploy.config.template import toml_value
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.recognition.diagnosis import described, settings
from dlx_deploy.nn.models.recognition.likeness import Likeness, likely_networks
from dlx_deploy.nn.weights.contents import read_contents, taken_state

__all__ = ["offered"]

_MODEL = "teacher.model"
_TWINS = 3


def offered(path: Path) -> str:
    """What to give so that the network is the one that the checkpoint ``path`` is likely of, as a command line has it.

    Raises:
        ConfigError: the file cannot be read.
    """
    contents = read_contents(path)
    try:
        _, shapes = taken_state(contents, path)
    except ConfigError as e:
        return f"the network's name or FILE.py:FUNCTION ({e})"
    found = likely_networks(shapes, hint=path.stem)
    if not found:
        return f"its code as FILE.py:FUNCTION: {path} is of no registered network"
    best = found[0]
    if not best.exact:
        return (
            f"its code as FILE.py:FUNCTION: {path} is of no registered network; the nearest is {described(best)}, "
            f"{best.differences.share:.0%} of the tensors (dlx-deploy inspect {path} says more)"
        )
    return f"{_options(best)}: every tensor of {path} fits {described(best)}{_twins(best)}"


def _options(likeness: Likeness) -> str:
    keys = settings(likeness)
    sets = [f"--set {key}={toml_value(value)}" for key, value in keys.items() if key != _MODEL]
    return " ".join([f"--model {likeness.name}", *sets])


def _twins(likeness: Likeness) -> str:
    others = ", ".join(likeness.others[:_TWINS]) + (", …" if len(likeness.others) > _TWINS else "")
    return f", and as well {others}: shapes cannot tell which of them it is" if others else ""
