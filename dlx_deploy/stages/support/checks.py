"""What is wrong at first sight with a section that trains a network: no heavy library, no file but a user's own."""

from __future__ import annotations

from dlx_deploy.config import Data, Training
from dlx_deploy.errors import ConfigError
from dlx_deploy.tasks import task_for

__all__ = ["check_training"]


def check_training(name: str, section: Training, data: Data) -> None:
    """The keys of the section ``name`` that only fit together in some ways.

    Raises:
        ConfigError: they do not.
    """
    if not section.epochs:
        return
    task_for(data).check_training(name, section)
    first = section.restart_epochs
    if section.schedule == "cosine-restarts" and not 1 <= first <= section.epochs:
        raise ConfigError(
            f"{name}.restart_epochs is {first} and {name}.epochs is {section.epochs}; with schedule = "
            "'cosine-restarts' the first cycle must be 1 epoch or more and not longer than training"
        )
