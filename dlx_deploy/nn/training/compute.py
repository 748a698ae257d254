"""What torch computes with: threads, seeds, and Accelerate's view of the devices and processes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import deterministic

from dlx_deploy.config import Training
from dlx_deploy.errors import EnvironmentMissing
from dlx_deploy.extras import install_command
from dlx_deploy.runtime.machine import available_cores

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["check_precision", "new_accelerator", "seed_all", "set_threads", "training_device"]


def set_threads(count: int) -> int:
    """Make torch compute with ``count`` threads (0: every core this process may use); gives back the number.

    Also asks for deterministic algorithms: on a CPU the same inputs give the same bits at the same number of threads.
    """
    threads = count or available_cores()
    torch.set_num_threads(threads)
    # On a GPU some operators have no deterministic form: there a warning says so.
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a pass over memory, to debug
    return threads


def seed_all(seed: int) -> None:
    """Seed torch's global generators, from which initial weights and dropout come."""
    torch.manual_seed(seed)


def training_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def new_accelerator(settings: Training) -> Accelerator:
    """An accelerator for one run in the section's precision, on the GPU if there is one.

    Raises:
        EnvironmentMissing: Accelerate is not installed, or the device has no such precision.
    """
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
    except ImportError as e:
        raise EnvironmentMissing(f"training needs accelerate ({e}); {install_command('build')}") from e
    check_precision(settings)
    # Accelerate would choose a number of threads itself where several processes run.
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    # Accelerate keeps the precision of the first run for the whole process; stages differ in it.
    AcceleratorState._reset_state()
    options: dict[str, Any] = {"mixed_precision": "no" if settings.precision == "fp32" else settings.precision}
    return Accelerator(cpu=not torch.cuda.is_available(), **options)


def check_precision(settings: Training) -> None:
    """Nothing, if this machine trains in the section's precision.

    Raises:
        EnvironmentMissing: it does not.
    """
    section = type(settings).__name__.lower()
    if settings.precision == "fp16" and not torch.cuda.is_available():
        raise EnvironmentMissing(
            f"{section}.precision is 'fp16', and there is no GPU here, which alone trains in it; use 'bf16' or 'fp32'"
        )
    if settings.precision == "bf16" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        raise EnvironmentMissing(f"{section}.precision is 'bf16', which this GPU does not know; use 'fp16' or 'fp32'")
